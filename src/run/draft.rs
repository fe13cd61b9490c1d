//! Files that appear whole at the end of a run: a draft beside the target that takes its name when it is complete, and a
//! spool that keeps entries on disk until their order is known.
//!
//! Owned by the printer thread. A draft that is dropped takes its file with it. Whoever is killed leaves a hidden
//! `.<name>.<pid>.part`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::ledger::Place;

/// A file in the making.
#[derive(Debug)]
pub struct Draft {
    file: BufWriter<File>,
    path: PathBuf,
    target: PathBuf,
}

impl Draft {
    /// Begins a file that will be `target`. What is there stays until the new one is complete.
    ///
    /// # Errors
    /// When the directory cannot be written, or `target` is something that a file must not replace.
    pub fn create(target: &Path) -> io::Result<Self> {
        // A link stays one: the file behind it is replaced.
        let target = match fs::metadata(target) {
            Ok(meta) if meta.is_file() => target.canonicalize()?,
            Ok(meta) if meta.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => return Err(io::Error::other("it is there and no regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(target)?,
            Err(error) => return Err(error),
        };
        let path = beside(&target, "part")?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        Ok(Self {
            file: BufWriter::new(file),
            path,
            target,
        })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// When it cannot be written to its end, or not be renamed.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.flush()?;
        fs::rename(&self.path, &self.target)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a commit nothing has this name any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// Entries on disk, by place.
#[derive(Debug)]
pub struct Spool {
    file: BufWriter<File>,
    written: u64,
    index: Vec<(Place, u64, usize)>,
}

impl Spool {
    /// An empty spool beside the file that its entries are for; it has no name.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn beside(target: &Path) -> io::Result<Self> {
        let path = beside(&std::path::absolute(target)?, "spool")?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        fs::remove_file(&path)?;
        Ok(Self {
            file: BufWriter::new(file),
            written: 0,
            index: Vec::new(),
        })
    }

    /// Keeps an entry.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, place: Place, entry: &[u8]) -> io::Result<()> {
        self.file.write_all(entry)?;
        self.index.push((place, self.written, entry.len()));
        self.written += entry.len() as u64;
        Ok(())
    }

    /// Hands every entry to `take`, in the order of the input.
    ///
    /// # Errors
    /// When one cannot be read, or `take` fails.
    pub fn in_order(mut self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        self.index.sort_unstable();
        let mut entry = Vec::new();
        let mut at = u64::MAX;
        for (_, offset, len) in self.index {
            if at != offset {
                file.seek(SeekFrom::Start(offset))?;
            }
            entry.resize(len, 0);
            file.read_exact(&mut entry)?;
            at = offset + len as u64;
            take(&entry)?;
        }
        Ok(())
    }
}

/// A hidden name in the directory of `target`, this process's own.
fn beside(target: &Path, ending: &str) -> io::Result<PathBuf> {
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::other("it names no file"))?;
    let name = format!(
        ".{}.{}.{ending}",
        name.to_string_lossy(),
        std::process::id()
    );
    Ok(target.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("r.csv");
        fs::write(&target, "old").unwrap();
        let mut draft = Draft::create(&target).unwrap();
        draft.write_all(b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        drop(draft);
        assert_eq!(names(dir.path()), ["r.csv"]);
        let mut draft = Draft::create(&target).unwrap();
        draft.write_all(b"new").unwrap();
        draft.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["r.csv"]);
    }

    #[test]
    fn a_link_stays_a_link_and_a_device_a_device() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("r"), dir.path().join("l"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        Draft::create(&link).unwrap().commit().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"");
        assert!(Draft::create(Path::new("/dev/null")).is_err());
        assert!(Draft::create(dir.path()).is_err());
        assert!(Draft::create(&dir.path().join("none/r")).is_err());
    }

    #[test]
    fn a_spool_gives_its_entries_back_in_the_order_of_the_input() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::beside(&dir.path().join("r")).unwrap();
        assert_eq!(names(dir.path()).len(), 0);
        for (line, text) in [(3, "ccc"), (1, "a"), (2, "")] {
            spool.push(Place::line(line), text.as_bytes()).unwrap();
        }
        let mut entries = Vec::new();
        let taken = spool.in_order(|entry| {
            entries.push(entry.to_vec());
            Ok(())
        });
        taken.unwrap();
        assert_eq!(entries, [&b"a"[..], b"", b"ccc"]);
    }
}
