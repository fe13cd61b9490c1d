//! Packing on real files: what is taken, what is left out, what is refused.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;

use super::*;

const LIMIT: u64 = 1 << 20;

fn go() -> AtomicBool {
    AtomicBool::new(false)
}

/// Name, type and content (or target) of every entry of an archive.
fn entries(archive: &Path) -> BTreeMap<String, (EntryType, String)> {
    let file = File::open(archive).unwrap();
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let kind = entry.header().entry_type();
        let mut content = String::new();
        match entry.link_name().unwrap() {
            Some(target) => content = target.to_string_lossy().into_owned(),
            None => {
                entry.read_to_string(&mut content).unwrap();
            }
        }
        (name, (kind, content))
    });
    entries.collect()
}

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("packed")
    }

    fn pack(&self) -> Result<Packed, PackError> {
        pack(&self.path(""), &self.target(), LIMIT, &go())
    }

    /// What lies beside the root.
    fn left(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.dir.path()).unwrap();
        let name = |entry: io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().to_string_lossy().into_owned()
        };
        names.map(name).filter(|name| name != "root").collect()
    }
}

#[test]
fn files_directories_and_links_come_back_as_they_were() {
    let bench = Bench::new();
    let deep = "d".repeat(120);
    std::fs::create_dir_all(bench.path(&deep)).unwrap();
    std::fs::write(bench.path(&format!("{deep}/file")), "content").unwrap();
    std::fs::write(bench.path("empty"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", bench.path("link")).unwrap();
    let packed = bench.pack().unwrap();
    assert_eq!(packed.left_out, None);
    let found = entries(&bench.target());
    let expected = [
        (deep.clone(), (EntryType::Directory, String::new())),
        (
            format!("{deep}/file"),
            (EntryType::Regular, "content".to_owned()),
        ),
        ("empty".to_owned(), (EntryType::Regular, String::new())),
        (
            "link".to_owned(),
            (EntryType::Symlink, "/etc/passwd".to_owned()),
        ),
    ];
    assert_eq!(found, BTreeMap::from(expected));
    let (size, sha256) = digest(&bench.target()).unwrap();
    assert_eq!((packed.size_bytes, packed.sha256), (size, sha256));
}

#[test]
fn loops_are_not_followed_and_special_files_are_left_out_in_words() {
    let bench = Bench::new();
    std::os::unix::fs::symlink(".", bench.path("loop")).unwrap();
    std::os::unix::fs::symlink("loop", bench.path("again")).unwrap();
    let pipe = bench.path("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(bench.path("socket")).unwrap();
    std::fs::write(bench.path("file"), "kept").unwrap();
    let packed = bench.pack().unwrap();
    let names: Vec<_> = entries(&bench.target()).into_keys().collect();
    assert_eq!(names, ["again", "file", "loop"]);
    let words = packed.left_out.unwrap();
    assert!(words.contains("`pipe` (a named pipe)"), "{words}");
    assert!(words.contains("`socket` (a socket)"), "{words}");
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_kept() {
    if rustix::process::geteuid().is_root() {
        // Nothing is unreadable for root; the same branch is taken by what vanishes.
        return;
    }
    let bench = Bench::new();
    for name in ["a", "b", "c", "d", "e"] {
        std::fs::write(bench.path(name), "secret").unwrap();
        std::fs::set_permissions(bench.path(name), std::fs::Permissions::from_mode(0o0)).unwrap();
    }
    std::fs::write(bench.path("open"), "kept").unwrap();
    let words = bench.pack().unwrap().left_out.unwrap();
    assert!(
        words.contains("`a` (") && words.ends_with("and 2 more"),
        "{words}"
    );
    let names: Vec<_> = entries(&bench.target()).into_keys().collect();
    assert_eq!(names, ["open"]);
}

#[test]
fn too_much_is_refused_and_leaves_nothing_behind() {
    let bench = Bench::new();
    let large = File::create(bench.path("large")).unwrap();
    large.set_len(LIMIT + 1).unwrap();
    let refused = bench.pack();
    assert!(matches!(refused, Err(PackError::TooLarge { limit: LIMIT })));
    assert_eq!(bench.left(), Vec::<String>::new());
}

#[test]
fn a_stop_ends_the_packing_and_leaves_nothing_behind() {
    let bench = Bench::new();
    std::fs::write(bench.path("file"), "content").unwrap();
    let stopped = pack(
        &bench.path(""),
        &bench.target(),
        LIMIT,
        &AtomicBool::new(true),
    );
    assert!(matches!(stopped, Err(PackError::Stopped)));
    assert_eq!(bench.left(), Vec::<String>::new());
}

#[test]
fn an_archive_that_cannot_be_written_is_an_error() {
    let bench = Bench::new();
    std::fs::write(bench.path("file"), "content").unwrap();
    // The directory above the target is missing, as good as a disk that refuses.
    let target = bench.dir.path().join("missing").join("packed");
    let refused = pack(&bench.path(""), &target, LIMIT, &go());
    assert!(matches!(refused, Err(PackError::Io(_))), "{refused:?}");
}
