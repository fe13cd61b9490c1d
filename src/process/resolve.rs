//! Finding a program the way its task would: by the task's PATH, relative to the task's directory.
//!
//! Done before the spawn so that `posix_spawn` gets one path and a miss has words. Nothing is cached: a program that
//! appears earlier in PATH between two tasks is found by the second.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::error::SpawnError;

/// Search path of a task that has no PATH at all.
pub const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The path of the program that `name` means.
///
/// A name with a slash is a path relative to `cwd`. Any other is looked for in `path_var` ([`DEFAULT_PATH`] when
/// absent), whose empty and relative entries are relative to `cwd` as well.
///
/// # Errors
/// [`SpawnError::NotFound`], [`SpawnError::Missing`], [`SpawnError::NotExecutable`], [`SpawnError::IsDirectory`], or
/// [`SpawnError::Os`] where the file system itself fails.
pub fn resolve_program(
    name: &OsStr,
    path_var: Option<&OsStr>,
    cwd: &Path,
) -> Result<PathBuf, SpawnError> {
    if name.as_bytes().contains(&b'/') {
        let path = cwd.join(name);
        return match check(&path)? {
            Found::Program => Ok(path),
            Found::Nothing => Err(SpawnError::Missing { path }),
            Found::NotExecutable => Err(SpawnError::NotExecutable { path }),
            Found::Directory => Err(SpawnError::IsDirectory { path }),
        };
    }
    let path_var = path_var.unwrap_or_else(|| OsStr::new(DEFAULT_PATH));
    let mut not_executable = None;
    for directory in path_var.as_bytes().split(|byte| *byte == b':') {
        let path = cwd.join(OsStr::from_bytes(directory)).join(name);
        match check(&path)? {
            Found::Program => return Ok(path),
            Found::NotExecutable => not_executable = not_executable.or(Some(path)),
            Found::Nothing | Found::Directory => {}
        }
    }
    Err(match not_executable {
        Some(path) => SpawnError::NotExecutable { path },
        None => SpawnError::NotFound {
            program: name.to_string_lossy().into_owned(),
            path: path_var.to_string_lossy().into_owned(),
        },
    })
}

/// The path by which a shell in `cwd` executes `name`, which it finds in `path_var`: relative where the entry is, unchanged
/// where the name has a slash. `None` when there is nothing to execute.
#[must_use]
pub fn find_as_a_shell(name: &OsStr, path_var: &OsStr, cwd: &Path) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(name.into());
    }
    let entries = path_var.as_bytes().split(|byte| *byte == b':');
    let mut candidates = entries.map(|entry| Path::new(OsStr::from_bytes(entry)).join(name));
    candidates.find(|path| matches!(check(&cwd.join(path)), Ok(Found::Program)))
}

enum Found {
    Program,
    Nothing,
    NotExecutable,
    Directory,
}

fn check(path: &Path) -> Result<Found, SpawnError> {
    match access(path, Access::EXEC_OK) {
        Ok(()) if path.is_dir() => Ok(Found::Directory),
        Ok(()) => Ok(Found::Program),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP) => Ok(Found::Nothing),
        // A directory of PATH that may not be searched hides what is in it, as it does for a shell.
        Err(Errno::ACCESS) if path.is_dir() => Ok(Found::Directory),
        Err(Errno::ACCESS) if path.exists() => Ok(Found::NotExecutable),
        Err(Errno::ACCESS) => Ok(Found::Nothing),
        Err(Errno::INVAL) => Err(SpawnError::Nul {
            what: "the program's name",
        }),
        Err(errno) => Err(SpawnError::Os {
            operation: "access",
            program: path.to_owned(),
            source: errno.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("tool", 0o755), ("data", 0o644)] {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        dir
    }

    fn resolve(name: &str, path_var: &str, cwd: &Path) -> Result<PathBuf, String> {
        resolve_program(OsStr::new(name), Some(OsStr::new(path_var)), cwd)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_is_looked_for_in_the_tasks_own_path() {
        let dir = directory();
        let path = format!("/nowhere:{}", dir.path().display());
        assert_eq!(
            resolve("tool", &path, Path::new("/")),
            Ok(dir.path().join("tool"))
        );
        let shell = resolve_program(OsStr::new("sh"), None, Path::new("/")).unwrap();
        assert!(shell.is_absolute() && shell.ends_with("sh"));
    }

    #[test]
    fn relative_names_and_entries_are_relative_to_the_tasks_directory() {
        let dir = directory();
        assert!(resolve("./tool", "", dir.path()).is_ok());
        assert!(resolve("tool", "", dir.path()).is_ok());
        assert!(resolve("tool", "sub/..", dir.path()).is_ok());
    }

    #[test]
    fn a_miss_names_the_program_and_the_search_path() {
        let error = resolve("no-such-tool", "/nowhere:/elsewhere", Path::new("/")).unwrap_err();
        assert!(error.contains("`no-such-tool`") && error.contains("/nowhere:/elsewhere"));
        let error = resolve("./no-such-tool", "", Path::new("/")).unwrap_err();
        assert!(error.contains("does not exist"));
    }

    #[test]
    fn what_is_found_and_no_program_is_said_so() {
        let dir = directory();
        let path = dir.path().display().to_string();
        let error = resolve("data", &path, Path::new("/")).unwrap_err();
        assert!(error.contains("is not executable"), "{error}");
        let error = resolve("./sub", "", dir.path()).unwrap_err();
        assert!(error.contains("is a directory"), "{error}");
        let error = resolve("sub", &path, Path::new("/")).unwrap_err();
        assert!(error.contains("was not found"), "{error}");
    }
}
