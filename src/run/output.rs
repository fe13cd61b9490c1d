//! One captured stream of an ended task: from its tail or its kept file to where the user wants it.
//!
//! Called on the printer thread, and by `logs`. A kept file that was passed on whole is removed: it would otherwise
//! be a second copy in a directory that nobody looks at.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::tag::Tagged;
use crate::protocol::LogStream;
use crate::protocol::report::Output;

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    /// Ending of its file.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
        }
    }
}

impl From<Stream> for LogStream {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Out => Self::Stdout,
            Stream::Err => Self::Stderr,
        }
    }
}

/// Writes the stream to `writer`, without the `seen` bytes that were shown while its task ran and with a tag before each line if there is one, and
/// removes its kept file.
///
/// # Errors
/// When it cannot be read or written.
pub fn print(
    output: &Output,
    seen: u64,
    tag: Option<&str>,
    writer: &mut impl Write,
) -> io::Result<()> {
    let kept = match tag {
        Some(tag) => {
            let mut tagged = Tagged::new(BufWriter::new(&mut *writer), tag);
            let kept = copy_rest(output, seen, &mut tagged)?;
            tagged.finish()?;
            kept
        }
        None => copy_rest(output, seen, writer)?,
    };
    writer.flush()?;
    if let Some(path) = kept {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Writes what was not seen of the stream.
fn copy_rest<'a>(
    output: &'a Output,
    seen: u64,
    writer: &mut impl Write,
) -> io::Result<Option<&'a Path>> {
    if seen == 0 {
        return copy(output, writer);
    }
    let Some(path) = output.file.as_deref().map(Path::new) else {
        let from = rest_from(output, seen, output.tail.len() as u64);
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        writer.write_all(output.tail.get(from..).unwrap_or_default())?;
        return Ok(None);
    };
    let mut file = File::open(path)?;
    let from = rest_from(output, seen, file.metadata()?.len());
    file.seek(SeekFrom::Start(from))?;
    io::copy(&mut file, writer).map(|_| Some(path))
}

/// Where the rest begins in what was kept, which has `size` bytes: after what was seen, where that is there, and else
/// behind the gap.
fn rest_from(output: &Output, seen: u64, size: u64) -> u64 {
    let before = match output.gap {
        Some(gap) if seen > gap.offset => seen.max(gap.end()) - gap.bytes,
        _ => seen,
    };
    before.min(size)
}

/// Writes the whole stream to `writer`; returns the kept file it was read from, if any.
///
/// # Errors
/// When it cannot be read or written.
pub fn copy<'a>(output: &'a Output, writer: &mut impl Write) -> io::Result<Option<&'a Path>> {
    let Some(path) = output.file.as_deref().map(Path::new) else {
        writer.write_all(&output.tail)?;
        return Ok(None);
    };
    match File::open(path) {
        Ok(mut file) => io::copy(&mut file, writer).map(|_| Some(path)),
        // Somebody cleaned up; the tail is all there is.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            writer.write_all(&output.tail)?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The file of a stream.
fn file(stem: &Path, stream: Stream) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(stream.extension());
    name.into()
}

/// Puts the whole stream into `<stem>.<out|err>`. The file appears complete or not at all.
///
/// # Errors
/// When it cannot be read or written.
pub fn save(stem: &Path, stream: Stream, output: &Output) -> io::Result<()> {
    let target = file(stem, stream);
    if let Some(kept) = &output.file
        && fs::rename(kept, &target).is_ok()
    {
        return Ok(());
    }
    if output.bytes == 0 {
        return File::create(&target).map(drop);
    }
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let draft = target.with_file_name(format!(".{name}.part"));
    let mut file = File::create(&draft)?;
    let kept = copy(output, &mut file)?;
    fs::rename(&draft, &target)?;
    kept.map_or(Ok(()), fs::remove_file)
}

/// True when both files are there, as after a run that wrote them.
#[must_use]
pub fn is_saved(stem: &Path) -> bool {
    [Stream::Out, Stream::Err]
        .into_iter()
        .all(|stream| file(stem, stream).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::Gap;

    fn kept(dir: &Path, content: &[u8]) -> Output {
        let path = dir.join("kept");
        fs::write(&path, content).unwrap();
        Output {
            bytes: content.len() as u64,
            tail: content[content.len() - 1..].to_vec(),
            file: Some(path.clone()),
            ..Output::default()
        }
    }

    #[test]
    fn a_short_output_comes_from_its_tail() {
        let output = Output {
            bytes: 2,
            tail: b"hi".to_vec(),
            ..Output::default()
        };
        let mut written = Vec::new();
        print(&output, 0, None, &mut written).unwrap();
        assert_eq!(written, b"hi");
        written.clear();
        print(&output, 0, Some("7"), &mut written).unwrap();
        assert_eq!(written, b"7\thi\n");
    }

    #[test]
    fn a_long_output_comes_from_its_file_which_goes() {
        let dir = tempfile::tempdir().unwrap();
        let output = kept(dir.path(), b"long output");
        let mut written = Vec::new();
        print(&output, 0, None, &mut written).unwrap();
        assert_eq!(written, b"long output");
        assert!(!dir.path().join("kept").exists());
        // Printed again, as after a crash: what is left is the tail.
        written.clear();
        print(&output, 0, None, &mut written).unwrap();
        assert_eq!(written, b"t");
    }

    #[test]
    fn what_was_seen_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let rest = |output: &Output, seen| {
            let mut written = Vec::new();
            print(output, seen, None, &mut written).unwrap();
            String::from_utf8(written).unwrap()
        };
        assert_eq!(rest(&kept(dir.path(), b"one\ntwo\n"), 4), "two\n");
        assert_eq!(rest(&kept(dir.path(), b"one\ntwo\n"), 8), "");
        let short = Output {
            bytes: 8,
            tail: b"one\ntwo\n".to_vec(),
            ..Output::default()
        };
        assert_eq!(rest(&short, 4), "two\n");
        // 20 bytes of head and 100 bytes of tail are left of 1,000.
        let text = format!("{}{}", "h".repeat(20), "t".repeat(100));
        let gap = Gap {
            offset: 20,
            bytes: 880,
        };
        let cut = || Output {
            bytes: 1000,
            truncated: true,
            gap: Some(gap),
            ..kept(dir.path(), text.as_bytes())
        };
        assert_eq!(rest(&cut(), 10), text[10..]);
        assert_eq!(rest(&cut(), 990), "t".repeat(10));
        assert_eq!(rest(&cut(), 500), text[20..]);
    }

    #[test]
    fn saving_moves_the_kept_file_and_leaves_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let output = kept(dir.path(), b"long output");
        let stem = |line: &str| dir.path().join(line);
        save(&stem("3"), Stream::Out, &output).unwrap();
        save(&stem("3"), Stream::Err, &Output::default()).unwrap();
        assert!(is_saved(&stem("3")) && !is_saved(&stem("4")));
        assert_eq!(fs::read(dir.path().join("3.out")).unwrap(), b"long output");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_reader_that_went_away_is_an_error_and_the_file_stays() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let output = kept(dir.path(), b"long output");
        let error = print(&output, 0, None, &mut Closed).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(dir.path().join("kept").exists());
    }
}
