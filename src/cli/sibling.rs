//! Programs of this product beside the running one: what is built and shipped apart from it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::process::resolve_program;

/// The program `name` in the directory of the running executable, else in the directories of `PATH`.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let own = own.as_deref().and_then(Path::parent);
    find_in(name, own, std::env::var_os("PATH").as_deref())
}

fn find_in(name: &str, own: Option<&Path>, path_var: Option<&OsStr>) -> Option<PathBuf> {
    let name = OsStr::new(name);
    let beside =
        own.and_then(|own| resolve_program(&own.join(name).into_os_string(), None, own).ok());
    beside.or_else(|| resolve_program(name, path_var, Path::new("")).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn program(dir: &Path, mode: u32) -> PathBuf {
        std::fs::create_dir_all(dir).unwrap();
        let path = dir.join("tool");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_one_beside_goes_before_the_one_in_path() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("own"), dir.path().join("other"));
        let in_path = program(&other, 0o755);
        let found = || find_in("tool", Some(&own), Some(other.as_os_str()));
        assert_eq!(found(), Some(in_path.clone()));
        program(&own, 0o644);
        assert_eq!(
            found(),
            Some(in_path),
            "a file that is no program is passed over"
        );
        let beside = program(&own, 0o755);
        assert_eq!(found(), Some(beside));
        assert_eq!(find_in("tool", None, Some(OsStr::new("/nowhere"))), None);
    }
}
