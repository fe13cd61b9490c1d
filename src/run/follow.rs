//! Reads along with tasks that still run: their output files as they grow, whole lines only.
//!
//! Files lie in one directory, `<uuid>.<attempt>.out` and `.err`, and are the tasks': nothing here writes, locks or waits,
//! so no task is ever slower for it. What has been shown is a number per stream; the text itself is not kept. Called on a
//! thread for blocking work.
//!
//! The middle of a very long output is dropped while its task runs ([`crate::protocol::task::Capture`]). What is read
//! there before it is known whether it was still whole is thrown away, and that is told beside the lines.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use uuid::Uuid;

use super::output::Stream;
use crate::protocol::report::Gap;

/// Most bytes of a stream that are read at one look. A longer line is shown in pieces.
const PIECE: usize = 64 << 10;
/// Most bytes of all streams that are read at one look; the rest has its turn at the next.
const LOOK: usize = 4 << 20;

/// Some whole lines of a running task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whose.
    pub task: Uuid,
    /// Of which stream.
    pub stream: Stream,
    /// The lines.
    pub bytes: Vec<u8>,
    /// What is gone before them.
    pub left_out: Option<Gap>,
}

/// What has been shown of an attempt, in bytes of each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shown {
    /// Of standard output.
    pub stdout: u64,
    /// Of standard error.
    pub stderr: u64,
}

#[derive(Debug)]
struct Followed {
    attempt: u32,
    /// Most bytes kept per stream; nothing is read before it is known.
    limit: Option<u64>,
    shown: Shown,
}

/// Follows the tasks whose files lie in one directory.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    tasks: HashMap<Uuid, Followed>,
    /// Tasks whose files were there at the last look.
    present: Vec<Uuid>,
}

impl Follower {
    /// Follows what appears in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            tasks: HashMap::new(),
            present: Vec::new(),
        }
    }

    /// Looks which tasks are there; returns those of which nothing is known yet.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn look(&mut self) -> io::Result<Vec<Uuid>> {
        self.present.clear();
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let Some((task, attempt)) = name.to_str().and_then(parse) else {
                continue;
            };
            let fresh = || Followed {
                attempt,
                limit: None,
                shown: Shown::default(),
            };
            let followed = self.tasks.entry(task).or_insert_with(fresh);
            if followed.attempt < attempt {
                followed.attempt = attempt;
                followed.shown = Shown::default();
            }
            self.present.push(task);
        }
        self.present.sort_unstable();
        self.present.dedup();
        let is_unknown = |task: &Uuid| self.tasks[task].limit.is_none();
        Ok(self.present.iter().copied().filter(is_unknown).collect())
    }

    /// Says how many bytes of a stream of this task are kept.
    pub fn know(&mut self, task: Uuid, limit: u64) {
        if let Some(followed) = self.tasks.get_mut(&task) {
            followed.limit = Some(limit);
        }
    }

    /// The lines that have been written since the last time.
    pub fn read(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut room = LOOK;
        for task in &self.present {
            let Some(followed) = self.tasks.get_mut(task) else {
                continue;
            };
            let Some(limit) = followed.limit else {
                continue;
            };
            let name = format!("{task}.{}", followed.attempt);
            for stream in [Stream::Out, Stream::Err] {
                if room < PIECE {
                    return pieces;
                }
                let shown = match stream {
                    Stream::Out => &mut followed.shown.stdout,
                    Stream::Err => &mut followed.shown.stderr,
                };
                let path = self.dir.join(format!("{name}.{}", stream.extension()));
                // It has ended in this moment, or its file cannot be read: its output comes whole with its end.
                let Ok((bytes, left_out)) =
                    File::open(path).and_then(|file| lines(&file, shown, limit))
                else {
                    continue;
                };
                room = room.saturating_sub(bytes.len());
                if !bytes.is_empty() || left_out.is_some() {
                    pieces.push(Piece {
                        task: *task,
                        stream,
                        bytes,
                        left_out,
                    });
                }
            }
        }
        pieces
    }

    /// What was shown of the last attempt of a task that has ended; it is not followed any more.
    pub fn end(&mut self, task: Uuid, attempt: u32) -> Shown {
        let followed = self.tasks.remove(&task);
        let last = followed.filter(|followed| followed.attempt == attempt);
        last.map_or_else(Shown::default, |followed| followed.shown)
    }
}

/// `<uuid>.<attempt>.<out|err>`.
fn parse(name: &str) -> Option<(Uuid, u32)> {
    let (name, ending) = name.rsplit_once('.')?;
    let (task, attempt) = name.rsplit_once('.')?;
    let known = matches!(ending, "out" | "err");
    known.then_some((task.parse().ok()?, attempt.parse().ok()?))
}

/// Whole lines after `shown`, which moves behind them, or what is gone there.
fn lines(file: &File, shown: &mut u64, limit: u64) -> io::Result<(Vec<u8>, Option<Gap>)> {
    let size = file.metadata()?.len();
    if size <= *shown {
        return Ok((Vec::new(), None));
    }
    let mut bytes = vec![0; PIECE];
    let count = file.read_at(&mut bytes, *shown)?;
    bytes.truncate(count);
    // Whatever was dropped until now lies between the head and the tail of the size of now.
    let (head, tail) = (limit / 2, limit - limit / 2);
    let whole_from = file.metadata()?.len().saturating_sub(tail);
    let end = *shown + count as u64;
    if end > head && *shown < whole_from {
        let gap = Gap {
            offset: *shown,
            bytes: whole_from - *shown,
        };
        *shown = whole_from;
        return Ok((Vec::new(), Some(gap)));
    }
    let line_end = bytes.iter().rposition(|byte| *byte == b'\n');
    match line_end {
        Some(last) => bytes.truncate(last + 1),
        None if count == PIECE => {}
        None => bytes.clear(),
    }
    *shown += bytes.len() as u64;
    Ok((bytes, None))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TASK: Uuid = Uuid::from_u128(7);

    struct Place {
        dir: tempfile::TempDir,
        follower: Follower,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let follower = Follower::new(dir.path().to_owned());
            Self { dir, follower }
        }

        fn write(&self, attempt: u32, ending: &str, text: impl AsRef<[u8]>) {
            let path = self.dir.path().join(format!("{TASK}.{attempt}.{ending}"));
            let mut file = File::options()
                .append(true)
                .create(true)
                .open(path)
                .unwrap();
            file.write_all(text.as_ref()).unwrap();
        }

        fn read(&mut self) -> Vec<(Stream, String)> {
            for task in self.follower.look().unwrap() {
                self.follower.know(task, 1 << 20);
            }
            let pieces = self.follower.read().into_iter();
            pieces
                .map(|piece| (piece.stream, String::from_utf8(piece.bytes).unwrap()))
                .collect()
        }
    }

    #[test]
    fn lines_come_once_and_whole() {
        let mut place = Place::new();
        place.write(1, "out", "one\ntw");
        assert_eq!(place.read(), [(Stream::Out, "one\n".to_owned())]);
        assert_eq!(place.read(), []);
        place.write(1, "out", "o\n");
        place.write(1, "err", "trouble\n");
        assert_eq!(
            place.read(),
            [
                (Stream::Out, "two\n".to_owned()),
                (Stream::Err, "trouble\n".to_owned())
            ]
        );
        let shown = place.follower.end(TASK, 1);
        assert_eq!((shown.stdout, shown.stderr), (8, 8));
        assert_eq!(place.follower.end(TASK, 1), Shown::default());
    }

    #[test]
    fn a_further_attempt_begins_anew_and_an_unseen_one_has_shown_nothing() {
        let mut place = Place::new();
        place.write(1, "out", "first\n");
        place.read();
        place.write(2, "out", "second\n");
        assert_eq!(place.read(), [(Stream::Out, "second\n".to_owned())]);
        assert_eq!(place.follower.end(TASK, 3), Shown::default());
    }

    #[test]
    fn a_line_too_long_to_wait_for_comes_in_pieces() {
        let mut place = Place::new();
        place.write(1, "out", "x".repeat(PIECE + 1));
        assert_eq!(place.read()[0].1.len(), PIECE);
        assert_eq!(place.read(), []);
        place.write(1, "out", "\n");
        assert_eq!(place.read()[0].1, "x\n");
    }

    #[test]
    fn what_may_have_been_dropped_is_not_shown_and_that_is_said() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at("line\n".repeat(200).as_bytes(), 0)
            .unwrap();
        let mut shown = 0;
        let gap = Gap {
            offset: 0,
            bytes: 950,
        };
        assert_eq!(lines(&file, &mut shown, 100).unwrap(), (vec![], Some(gap)));
        let rest = "line\n".repeat(10).into_bytes();
        assert_eq!(lines(&file, &mut shown, 100).unwrap(), (rest, None));
        assert_eq!(shown, 1000);
    }

    #[test]
    fn other_files_are_none_of_its_business() {
        let mut place = Place::new();
        for name in [
            "x",
            "x.1.out",
            &format!("{TASK}.out"),
            &format!("{TASK}.1.log"),
        ] {
            std::fs::write(place.dir.path().join(name), "a\n").unwrap();
        }
        assert_eq!(place.read(), []);
    }
}
