//! What every process of this program does first, so that none of its ends is silent and none of its faults a hang.
//!
//! A thread that panics would leave the others waiting for it. So a panic ends the process, with a sentence and the code of
//! a failed system; workers and tasks notice the death as they notice any other. Only where one task's or one request's
//! panic is its own business it unwinds to whoever catches it ([`tolerated`]). Nothing else in the program installs a hook.

use std::cell::Cell;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::exit_code::Exit;
use crate::process;

/// The code of a worker that panicked: its manager takes it for a sign that the task was the cause.
pub const WORKER_PANICKED: u8 = 101;
/// How the runtime says that it gets no thread; it panics then.
const NO_THREAD: &str = "can't spawn worker thread";
/// What to do where there are not enough threads.
pub const MORE_THREADS: &str = "this user may have no more threads or processes: raise the limit (ulimit -u, TasksMax of the unit, \
    pids.max of the container), end some, or start fewer workers";

static CODE: AtomicU8 = AtomicU8::new(0);

thread_local! {
    static TOLERANT: Cell<bool> = const { Cell::new(false) };
}

/// To be called once, before any thread is started.
pub fn install() {
    process::survive_file_size_limit();
    process::tell_lost_memory();
    panics_end_with(Exit::System.code());
    std::panic::set_hook(Box::new(on_panic));
}

/// The exit code of a process that panics from here on.
pub fn panics_end_with(code: u8) {
    CODE.store(code, Ordering::Relaxed);
}

/// Runs `future` so that a panic in it unwinds to its caller, who catches it.
pub async fn tolerated<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let _turn = Turn(TOLERANT.replace(true));
        future.as_mut().poll(context)
    })
    .await
}

/// Restores what was before, also when it is dropped by a panic.
struct Turn(bool);

impl Drop for Turn {
    fn drop(&mut self) {
        TOLERANT.set(self.0);
    }
}

fn on_panic(info: &PanicHookInfo<'_>) {
    let text = info.payload().downcast_ref::<&str>().copied();
    let text = text.or_else(|| info.payload().downcast_ref::<String>().map(String::as_str));
    let words = text.unwrap_or("without a message");
    if words.contains(NO_THREAD) {
        say(MORE_THREADS);
        end(Exit::System.code());
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = info.location().map(ToString::to_string);
    let place = place.unwrap_or_default();
    if TOLERANT.get() {
        say(&format!("a fault of this program, at {place}: {words}"));
        return;
    }
    say(&format!(
        "a fault of this program ends it: thread {name} panicked at {place}: {words}; what was accepted is kept and can be \
         resumed, please report this"
    ));
    end(CODE.load(Ordering::Relaxed));
}

#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "whoever would return from main waits for the thread that panics"
)]
fn end(code: u8) -> ! {
    std::process::exit(code.into())
}

fn say(words: &str) {
    // Nobody is left to be told when stderr is closed.
    let _ = writeln!(std::io::stderr(), "mitosis: {words}");
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Set in the process that panics.
    const CHILD: &str = "MITOSIS_TEST_PANICS";

    fn panic_in_a_thread() -> ! {
        install();
        let thread = std::thread::Builder::new().name("poller".to_owned());
        let thread = thread.spawn(|| panic!("as this test wants")).unwrap();
        // As whoever waits for the thread's word for ever.
        drop(thread);
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn a_panic_of_any_thread_ends_the_process_with_a_sentence() {
        if std::env::var_os(CHILD).is_some() {
            panic_in_a_thread();
        }
        let this = std::env::current_exe().unwrap();
        let name = "guard::tests::a_panic_of_any_thread_ends_the_process_with_a_sentence";
        let mut other = std::process::Command::new(this);
        other.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
        let ended = other.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(3), "{said}");
        assert!(said.contains("thread poller panicked"), "{said}");
        assert!(said.contains("as this test wants"), "{said}");
    }

    #[tokio::test]
    async fn what_is_tolerated_is_so_only_inside_and_after_a_panic_no_more() {
        let inside = tolerated(async { TOLERANT.get() }).await;
        assert!(inside && !TOLERANT.get());
        let panics = tolerated(async { panic!("as this test wants") });
        let caught = std::panic::AssertUnwindSafe(panics).catch_unwind().await;
        assert!(caught.is_err() && !TOLERANT.get());
    }
}
