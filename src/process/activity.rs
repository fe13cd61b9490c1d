//! What a silent process has had of the cores.
//!
//! On a crowded machine a healthy process may get no core for seconds, and then it cannot speak. One that was given CPU time and
//! says nothing nevertheless is another matter. Read from `/proc`, on demand only; nothing here decides what follows.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;

/// CPU time that the living threads of a process have had; `None` when it is gone or the kernel does not tell.
#[must_use]
pub fn cpu_time(pid: Pid) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).ok()?;
    // A thread may end while this looks.
    let times = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        on_a_core(&text)
    });
    times.reduce(|one, other| one + other)
}

/// The first number of a `schedstat` line (proc(5)): nanoseconds on a core.
fn on_a_core(line: &str) -> Option<Duration> {
    let nanoseconds = line.split_ascii_whitespace().next()?;
    nanoseconds.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_is_the_time_on_a_core() {
        let time = on_a_core("1500 20 3\n");
        assert_eq!(time, Some(Duration::from_nanos(1500)));
        assert_eq!((on_a_core(""), on_a_core("x 1 2")), (None, None));
    }

    #[test]
    fn whoever_computes_has_had_a_core_and_whoever_is_gone_has_not() {
        let own = rustix::process::getpid();
        let before = cpu_time(own).unwrap();
        while cpu_time(own).unwrap() < before + Duration::from_millis(5) {}
        let nobody = Pid::from_raw(i32::MAX).unwrap();
        assert_eq!(cpu_time(nobody), None);
    }
}
