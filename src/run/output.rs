//! One captured stream of an ended task: from its tail or its kept file to where the user wants it.
//!
//! Called on the printer thread, and by `logs`. A kept file that was passed on whole is removed: it would otherwise
//! be a second copy in a directory that nobody looks at.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::ledger::Place;
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

/// Writes the whole stream to `writer` and removes its kept file.
///
/// # Errors
/// When it cannot be read or written.
pub fn print(output: &Output, writer: &mut impl Write) -> io::Result<()> {
    let kept = copy(output, writer)?;
    writer.flush()?;
    if let Some(path) = kept {
        fs::remove_file(path)?;
    }
    Ok(())
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

/// Puts the whole stream into `<place>.<out|err>` below `directory`. The file appears complete or not at all.
///
/// # Errors
/// When it cannot be read or written.
pub fn save(directory: &Path, place: Place, stream: Stream, output: &Output) -> io::Result<()> {
    let name = format!("{place}.{}", stream.extension());
    let target = directory.join(&name);
    if let Some(kept) = &output.file
        && fs::rename(kept, &target).is_ok()
    {
        return Ok(());
    }
    if output.bytes == 0 {
        return File::create(&target).map(drop);
    }
    let draft = directory.join(format!(".{name}.part"));
    let mut file = File::create(&draft)?;
    let kept = copy(output, &mut file)?;
    fs::rename(&draft, &target)?;
    kept.map_or(Ok(()), fs::remove_file)
}

/// True when the files of a place are both there, as after a run that wrote them.
#[must_use]
pub fn is_saved(directory: &Path, place: Place) -> bool {
    [Stream::Out, Stream::Err].into_iter().all(|stream| {
        directory
            .join(format!("{place}.{}", stream.extension()))
            .exists()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(dir: &Path, content: &[u8]) -> Output {
        let path = dir.join("kept");
        fs::write(&path, content).unwrap();
        Output {
            bytes: content.len() as u64,
            truncated: false,
            tail: content[content.len() - 1..].to_vec(),
            file: Some(path.to_str().unwrap().to_owned()),
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
        print(&output, &mut written).unwrap();
        assert_eq!(written, b"hi");
    }

    #[test]
    fn a_long_output_comes_from_its_file_which_goes() {
        let dir = tempfile::tempdir().unwrap();
        let output = kept(dir.path(), b"long output");
        let mut written = Vec::new();
        print(&output, &mut written).unwrap();
        assert_eq!(written, b"long output");
        assert!(!dir.path().join("kept").exists());
        // Printed again, as after a crash: what is left is the tail.
        written.clear();
        print(&output, &mut written).unwrap();
        assert_eq!(written, b"t");
    }

    #[test]
    fn saving_moves_the_kept_file_and_leaves_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let output = kept(dir.path(), b"long output");
        save(dir.path(), Place::line(3), Stream::Out, &output).unwrap();
        save(dir.path(), Place::line(3), Stream::Err, &Output::default()).unwrap();
        assert!(is_saved(dir.path(), Place::line(3)) && !is_saved(dir.path(), Place::line(4)));
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
        let error = print(&output, &mut Closed).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(dir.path().join("kept").exists());
    }
}
