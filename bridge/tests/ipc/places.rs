//! Where the transport lives: nothing of it can be reached, taken or named by others, and it takes what is reckoned.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mitosis_bridge::limits::{DESCRIPTORS_PER_WORKER, SHM_BYTES_PER_WORKER};
use mitosis_bridge::{TransportRoot, limits};

use crate::support::fixture::Fixture;
use crate::support::leaks::descriptors;

const WORKERS: u8 = 4;
/// Unit of `st_blocks`.
const BLOCK: u64 = 512;

/// Everything below a directory, itself included.
fn below(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let entries = fs::read_dir(path).map(|entries| entries.flatten().collect::<Vec<_>>());
    for entry in entries.unwrap_or_default() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

async fn with_workers() -> (Fixture, Vec<crate::support::child::Process>) {
    let mut fixture = Fixture::with(|config| {
        let instance = &config.manager.simple().to_string()[..8];
        config.root = TransportRoot::for_instance(instance).unwrap();
    })
    .await;
    let mut workers = Vec::new();
    for slot in 0..WORKERS {
        workers.push(fixture.start(slot, "echo").await);
    }
    (fixture, workers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_takes_what_is_reckoned_and_its_segments_are_reserved_in_full() {
    let mut fixture = Fixture::open().await;
    let before = descriptors();
    let mut workers = Vec::new();
    for slot in 0..WORKERS {
        workers.push(fixture.start(slot, "echo").await);
    }
    fixture.until_parked(u64::from(WORKERS)).await;
    let opened = (descriptors() - before).div_ceil(usize::from(WORKERS));
    let mut taken = 0;
    for file in fixture.root.shared_memory_files().unwrap() {
        let meta = fs::metadata(&file).unwrap();
        assert!(meta.blocks() * BLOCK >= meta.len(), "{file:?} has holes");
        taken += meta.blocks() * BLOCK;
    }
    let taken = taken / u64::from(WORKERS);
    eprintln!("one worker: {opened} descriptors, {taken} bytes");
    assert!(u64::try_from(opened).unwrap() <= DESCRIPTORS_PER_WORKER);
    assert!(taken <= SHM_BYTES_PER_WORKER && taken > SHM_BYTES_PER_WORKER / 2);
    fixture.send_home(&mut workers).await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_running_transport_can_be_reached_or_named_by_others() {
    let (mut fixture, mut workers) = with_workers().await;
    let root = fixture.root.path().to_owned();
    let me = rustix::process::geteuid().as_raw();
    let meta = fs::symlink_metadata(&root).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (me, 0o700));
    let inside = below(&root);
    assert!(inside.len() > usize::from(WORKERS) * 10, "{inside:?}");
    for path in &inside {
        let meta = fs::symlink_metadata(path).unwrap();
        assert_eq!(meta.uid(), me, "{path:?}");
        // Directories inside are entered through the root alone.
        assert!(meta.is_dir() || meta.mode() & 0o077 == 0, "{path:?}");
    }
    // Every file that manager and workers map or hold lies below it, or has no name.
    let pids = workers.iter().map(|worker| worker.pid());
    for pid in pids.chain([std::process::id()]) {
        for path in shared_by(pid) {
            assert!(path.starts_with(&root), "{pid} uses {path:?}");
        }
    }
    fixture.send_home(&mut workers).await;
    fixture.close().await;
}

/// Files in places where others may write that a process has mapped or open.
fn shared_by(pid: u32) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mapped = maps
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(5))
        .map(PathBuf::from);
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    // The test's own binary and its output are no business of the transport.
    let places = ["/dev/shm", "/run"].map(Path::new);
    mapped
        .chain(open)
        .filter(|path| places.iter().any(|place| path.starts_with(place)))
        .collect()
}

/// A second user of the machine, removed with the test.
struct Stranger(String);

impl Stranger {
    /// `None` where we may not make one.
    fn new() -> Option<Self> {
        let name = format!("mitosis{}", std::process::id());
        let made = Command::new("useradd").args(["-M", "-N", &name]).output();
        made.is_ok_and(|made| made.status.success())
            .then_some(Self(name))
    }

    /// What a shell of his says, failures included.
    fn tries(&self, script: &str, root: &Path) -> String {
        let output = Command::new("setpriv")
            .args(["--reuid", &self.0, "--clear-groups", "--"])
            .args(["sh", "-c", script, "sh"])
            .arg(root)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _removed = Command::new("userdel").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_can_neither_see_nor_cut_nor_take_nor_move_anything() {
    let Some(stranger) = Stranger::new() else {
        eprintln!("no second user can be made here: nothing tested");
        return;
    };
    let (mut fixture, mut workers) = with_workers().await;
    let root = fixture.root.path().to_owned();
    let files = fixture.root.shared_memory_files().unwrap();
    let file = &files[0];
    let script = r#"
        ls "$1" && echo listed
        touch "$1/mine" && echo made
        mv "$1" "$1-moved" && echo moved
        rmdir "$1" && echo removed
        chmod 777 "$1" && echo opened
    "#;
    assert_eq!(stranger.tries(script, &root), "");
    let script = r#"
        cat "$1" && echo read
        : > "$1" && echo truncated
        rm -f "$1" && echo removed
    "#;
    assert_eq!(stranger.tries(script, file), "");
    // Whatever he makes beside it is in nobody's way: the next root has another name.
    let script = r#"mkdir -m 777 "$1" && touch "$1/lock" && echo made"#;
    let instance = &fixture.manager.simple().to_string()[..8];
    let guess = root.with_file_name(format!("mitosis-{instance}-0123456789abcdef"));
    assert_eq!(stranger.tries(script, &guess).trim(), "made");
    fixture.send_home(&mut workers).await;
    let next = TransportRoot::for_instance(instance).unwrap();
    assert!(next != fixture.root && next.path() != guess);
    assert!(limits::ensure_limits(&next, 1).is_ok());
    fixture.close().await;
    assert!(guess.join("lock").exists(), "it is his, not ours to clear");
    fs::remove_dir_all(guess).unwrap();
}
