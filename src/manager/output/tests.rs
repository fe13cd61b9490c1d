//! Reading a file that its writer goes on with, cuts, empties, or has given to somebody else.

use std::cell::Cell;

use proptest::prelude::*;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::protocol::session::HeldLease;
use crate::protocol::{Lease, TaskRef};

const EXECUTION: Execution = Execution {
    lease: LeaseKey {
        task_id: 4,
        lease: Lease(9),
    },
    try_no: Try(2),
    attempt: 3,
    limit: 1000,
};

const IN_HAND: TaskInHand = TaskInHand {
    lease: 9,
    attempt: 2,
    task_id: 4,
    pgid: 77,
};

fn request(attempt: u32, offset: u64) -> PartRequest {
    PartRequest {
        lease: HeldLease {
            task: TaskRef {
                id: 4,
                uuid: Uuid::nil(),
            },
            lease: Lease(9),
        },
        stream: LogStream::Stdout,
        attempt,
        offset,
    }
}

/// A slot whose task has written this.
fn slot(content: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = path(dir.path(), LocalId(0), LogStream::Stdout);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    (dir, path)
}

fn part(path: &Path, attempt: u32, offset: u64) -> Option<(u64, String)> {
    let part = read(path, &request(attempt, offset), &EXECUTION, || {
        Some(IN_HAND)
    });
    part.unwrap().map(|part| {
        assert_eq!(part.attempt, EXECUTION.attempt);
        (part.offset, String::from_utf8(part.bytes).unwrap())
    })
}

#[test]
fn a_part_begins_where_the_reader_is_and_another_executions_at_its_beginning() {
    let (_dir, path) = slot(b"0123456789");
    assert_eq!(part(&path, 3, 4), Some((4, "456789".into())));
    assert_eq!(part(&path, 3, 10), Some((10, String::new())));
    for other in [0, 2] {
        assert_eq!(part(&path, other, 4), Some((0, "0123456789".into())));
    }
}

#[test]
fn a_part_has_a_longest_length() {
    let (_dir, path) = slot(&[b'x'; 3 * MAX_PART_BYTES as usize]);
    let execution = Execution {
        limit: u64::MAX,
        ..EXECUTION
    };
    let part = read(&path, &request(3, 5), &execution, || Some(IN_HAND));
    let part = part.unwrap().unwrap();
    assert_eq!(
        (part.offset, part.bytes.len()),
        (5, MAX_PART_BYTES as usize)
    );
}

#[test]
fn nothing_is_read_unless_the_worker_names_this_execution_before_and_after() {
    let (_dir, path) = slot(b"somebody else's");
    let not = [
        None,
        Some(TaskInHand { pgid: 0, ..IN_HAND }),
        Some(TaskInHand {
            attempt: 3,
            ..IN_HAND
        }),
        Some(TaskInHand {
            lease: 8,
            ..IN_HAND
        }),
        Some(TaskInHand {
            task_id: 5,
            ..IN_HAND
        }),
    ];
    for other in not {
        let looks = Cell::new(0);
        let then = || {
            looks.set(looks.get() + 1);
            if looks.get() == 1 {
                Some(IN_HAND)
            } else {
                other
            }
        };
        assert_eq!(
            read(&path, &request(3, 0), &EXECUTION, || other).unwrap(),
            None
        );
        assert_eq!(read(&path, &request(3, 0), &EXECUTION, then).unwrap(), None);
    }
}

#[test]
fn a_file_that_lost_its_name_while_it_was_read_does_not_count() {
    let (dir, path) = slot(b"as written");
    let file = open(&path).unwrap();
    assert!(is_named(&file, &path).unwrap());
    std::fs::rename(&path, dir.path().join("kept")).unwrap();
    assert!(!is_named(&file, &path).unwrap());
    std::fs::write(&path, b"fresh").unwrap();
    assert!(!is_named(&file, &path).unwrap());
}

#[test]
fn links_and_pipes_in_the_files_place_are_not_read() {
    let (dir, path) = slot(b"");
    std::fs::remove_file(&path).unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    std::os::unix::fs::symlink(&secret, &path).unwrap();
    assert!(open(&path).is_err());
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(open(&path).is_err());
}

#[test]
fn beyond_the_limit_the_reader_goes_on_at_the_tail() {
    let content: String = ('a'..='z').cycle().take(5000).collect();
    let (_dir, path) = slot(content.as_bytes());
    assert_eq!(part(&path, 3, 0), Some((0, content[..500].into())));
    assert_eq!(part(&path, 3, 500), Some((4500, content[4500..].into())));
    assert_eq!(part(&path, 3, 4700), Some((4700, content[4700..].into())));
    assert_eq!(part(&path, 3, 5000), Some((5000, String::new())));
}

#[tokio::test(start_paused = true)]
async fn answers_leave_room_on_the_link_and_end_with_it() {
    let (link_tx, link_rx) = flume::bounded(4 * LINK_SHARE);
    let mut outputs = OutputReader::new(PathBuf::new());
    for id in 0..3 * LINK_SHARE as u64 {
        outputs.answer(link_tx.downgrade(), id, PartAnswer::NotHere);
    }
    tokio::time::sleep(100 * LINK_PAUSE).await;
    assert_eq!(link_rx.len(), LINK_SHARE);
    for id in 0..2 * LINK_SHARE as u64 {
        let answer = PartAnswer::NotHere;
        let frame = link_rx.recv_async().await.unwrap();
        assert_eq!(frame, ToCoordinator::Output { id, answer });
    }
    // Nobody is kept waiting by what nobody takes.
    drop(link_tx);
    while outputs.readings.join_next().await.is_some() {}
    assert!(link_rx.drain().count() <= LINK_SHARE);
    assert!(link_rx.is_disconnected());
}

proptest! {
    /// A writer that appends and gives the middle back, and a reader that is now quick and now slow: every byte that is
    /// read is the one that was written at its offset.
    #[test]
    fn what_is_read_is_what_was_written(
        limit in 0..4000u64,
        steps in prop::collection::vec((0..3000usize, prop::bool::ANY, prop::bool::ANY), 1..40),
    ) {
        let byte = |at: u64| b'a' + u8::try_from(at % 23).unwrap();
        let (_dir, path) = slot(b"");
        let split = Split::of(limit);
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        let (mut size, mut at) = (0u64, 0u64);
        for (more, is_cut, is_read) in steps {
            let bytes: Vec<u8> = (size..size + more as u64).map(byte).collect();
            std::io::Write::write_all(&mut &writer, &bytes).unwrap();
            size += more as u64;
            let dropped = split.head..size.saturating_sub(split.tail);
            if is_cut && !dropped.is_empty() {
                // What is given back reads as zeroes.
                let holes = vec![0; usize::try_from(dropped.end - dropped.start).unwrap()];
                let hole = OpenOptions::new().write(true).open(&path).unwrap();
                hole.write_all_at(&holes, dropped.start).unwrap();
            }
            if is_read {
                let file = open(&path).unwrap();
                let (from, bytes) = read_kept(&file, at, split).unwrap().unwrap();
                prop_assert!(from >= at);
                for (index, read) in bytes.iter().enumerate() {
                    prop_assert_eq!(*read, byte(from + index as u64));
                }
                at = from + bytes.len() as u64;
            }
        }
    }
}
