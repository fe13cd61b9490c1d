//! A program in a terminal: a real pseudo terminal of a given width, and an emulator that says what stands on its screen.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Sandbox, wait};

/// Lines of the screen: more than any test fills.
const ROWS: u16 = 60;

/// A program that was started in a terminal of its own.
pub(crate) struct Terminal {
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    /// Every byte that was written to the terminal.
    written: Arc<Mutex<Vec<u8>>>,
    /// Reads until the last writer is gone.
    reader: JoinHandle<()>,
    master: Arc<OwnedFd>,
}

impl Terminal {
    /// Starts the program with its outputs on a terminal of so many columns.
    #[track_caller]
    pub(crate) fn start(
        sandbox: &Sandbox,
        columns: u16,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
        grantpt(&master).expect("its other end is ours");
        unlockpt(&master).expect("its other end can be opened");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let name = name.into_string().expect("a name in ASCII");
        let size = Winsize {
            ws_row: ROWS,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("its size");
        let slave = |_| {
            let opened = OpenOptions::new().read(true).write(true).open(&name);
            opened.expect("the terminal can be opened")
        };
        let [stdout, stderr]: [File; 2] = [0, 1].map(slave);
        let mut command: Command = sandbox.command(args);
        command
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .envs(environment.iter().copied())
            .stdout(stdout)
            .stderr(stderr);
        let child = command.spawn().expect("the program starts");
        // The ends for the child are closed here: the last writer of the terminal is the program.
        drop(command);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(
            cells(ROWS),
            cells(columns),
            0,
        )));
        let written = Arc::default();
        let master = Arc::new(master);
        let reader = {
            let (screen, written) = (Arc::clone(&screen), Arc::clone(&written));
            let master = master.try_clone().expect("a second descriptor");
            let name = std::thread::Builder::new().name("terminal".to_owned());
            let spawned = name.spawn(move || read(File::from(master), &screen, &written));
            spawned.expect("a thread")
        };
        Self {
            child,
            screen,
            written,
            reader,
            master,
        }
    }

    /// What stands on the screen.
    pub(crate) fn text(&self) -> String {
        let parser = self.screen.lock().expect("the reader lives");
        let (_, columns) = parser.screen().size();
        let rows = parser.screen().rows(0, columns.get());
        let rows: Vec<String> = rows.map(|row| row.trim_end().to_owned()).collect();
        rows.join("\n").trim_end().to_owned()
    }

    /// Every byte that was written, as text.
    pub(crate) fn written(&self) -> String {
        let written = self.written.lock().expect("the reader lives");
        String::from_utf8_lossy(&written).into_owned()
    }

    /// Waits until the screen shows what `look` wants.
    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        wait::until(what, wait::LONG, || {
            let text = self.text();
            look(&text).ok_or(text)
        })
    }

    pub(crate) fn resize(&self, columns: u16) {
        let size = Winsize {
            ws_row: ROWS,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let mut screen = self.screen.lock().expect("the reader lives");
        screen.screen_mut().set_size(cells(ROWS), cells(columns));
        tcsetwinsize(&*self.master, size).expect("its size");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        let pid = Pid::from_raw(pid).expect("a pid");
        kill_process(pid, signal).expect("our own child");
    }

    /// Waits for the end of the program; returns its status, the last screen, and every byte.
    #[track_caller]
    pub(crate) fn finish(mut self) -> (ExitStatus, String, String) {
        let status = wait::until("the program to end", wait::LONG, || {
            let ended = self.child.try_wait().expect("our own child");
            ended.ok_or_else(|| self.text())
        });
        // The terminal ends with its last writer, which the program was.
        wait::until("the terminal to be read to its end", wait::LONG, || {
            let ended = self.reader.is_finished();
            ended.then_some(()).ok_or_else(|| self.text())
        });
        (status, self.text(), self.written())
    }
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).expect("a screen is not empty")
}

fn read(mut master: File, screen: &Mutex<vt100::Parser>, written: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 4096];
    // An error is the end: nobody has the other side open any more.
    while let Ok(count @ 1..) = master.read(&mut bytes) {
        screen
            .lock()
            .expect("no test panics with it in hand")
            .process(&bytes[..count]);
        written
            .lock()
            .expect("no test panics with it in hand")
            .extend_from_slice(&bytes[..count]);
    }
}
