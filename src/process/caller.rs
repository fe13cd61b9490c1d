//! What this process got from its caller and has changed since for itself, so that children get it as it was.
//!
//! Nice value, umask, directory and cores are inherited unchanged; nothing here keeps them. Changed are the soft limit of
//! open files, which grows with the number of workers, and the signals that this process handles or ignores for its own
//! sake. A caller who ignores `SIGPIPE` cannot be told from the language's runtime, which does; children never ignore it.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit};

static CALLER: OnceLock<Caller> = OnceLock::new();

/// Signals that this program ignores for itself; see [`ignored_here`].
const OWN: [i32; 2] = [libc::SIGPIPE, libc::SIGXFSZ];
/// Signals of the C library, which has children of its `posix_spawn` ignore them: nobody's wish.
const LIBRARYS: [i32; 2] = [32, 33];

#[derive(Debug)]
struct Caller {
    open_files: Rlimit,
    /// A bit per signal, the lowest for signal 1.
    ignored: u64,
}

/// Takes note of what the caller gave. To be called before anything is changed; whoever asks first does it otherwise.
pub fn remember_caller() {
    caller();
}

fn caller() -> &'static Caller {
    CALLER.get_or_init(|| Caller {
        open_files: getrlimit(Resource::Nofile),
        ignored: std::fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|status| ignored_in(&status))
            .unwrap_or(0),
    })
}

/// The set of ignored signals in a `status` file, without those of the language's runtime.
fn ignored_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))?;
    let set = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(set & !bit(libc::SIGPIPE))
}

fn bit(signal: i32) -> u64 {
    let place = u32::try_from(signal - 1).ok();
    place
        .and_then(|place| 1_u64.checked_shl(place))
        .unwrap_or(0)
}

/// The limit of open files of a child, where it is not this process's own.
pub(super) fn open_files() -> Option<Rlimit> {
    let now = getrlimit(Resource::Nofile);
    let given = caller().open_files.current;
    (now.current != given).then_some(Rlimit {
        current: given,
        maximum: now.maximum,
    })
}

/// Signals that a child ignores, as the caller wants it.
pub(super) fn ignored() -> impl Iterator<Item = i32> {
    let set = caller().ignored;
    let wanted = move |signal: &i32| set & bit(*signal) != 0 && !LIBRARYS.contains(signal);
    (1..=64).filter(wanted)
}

/// Signals that are ignored here and are not to be in a child.
pub(super) fn ignored_here() -> impl Iterator<Item = i32> {
    let set = caller().ignored;
    let own = OWN
        .into_iter()
        .filter(move |signal| set & bit(*signal) == 0);
    let librarys = LIBRARYS.into_iter();
    own.chain(librarys.filter(move |signal| set & bit(*signal) != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_ignores_is_read_without_the_runtimes_own() {
        let status = "Name:\tx\nSigIgn:\t0000000000001003\nSigCgt:\t0000000000000000\n";
        assert_eq!(ignored_in(status), Some(3));
        assert_eq!(ignored_in("Name:\tx\n"), None);
        assert_eq!((bit(1), bit(64), bit(0)), (1, 1 << 63, 0));
    }
}
