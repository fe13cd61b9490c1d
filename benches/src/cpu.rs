//! CPU time of processes: this one, its children, and any by its pid.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::time::ClockId;

/// CPU time of all threads of this process, to the nanosecond.
pub(super) fn of_this_process() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// CPU time of all living threads of a process, to the nanosecond. Threads that have ended are not in it.
///
/// # Errors
/// When the process is gone or the kernel keeps no such statistics.
pub(super) fn of_process(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        match std::fs::read_to_string(thread?.path().join("schedstat")) {
            Ok(text) => nanoseconds += time_on_cpu(&text).ok_or(io::ErrorKind::InvalidData)?,
            // It ended between the list and the look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The first field of a `schedstat` file.
fn time_on_cpu(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// CPU time of all children that were waited for, and of theirs, in seconds.
pub(super) fn of_children() -> io::Result<f64> {
    let stat = std::fs::read_to_string(Path::new("/proc/self/stat"))?;
    let ticks = children_ticks(&stat).ok_or(io::ErrorKind::InvalidData)?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// `cutime` + `cstime`: fields 16 and 17, counted after the name, which may contain anything.
fn children_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(13);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_the_stat_file_may_contain_anything() {
        let stat = "1 (a) b) S 1 1 1 0 -1 0 0 0 0 0 11 12 13 14 20 0 1";
        assert_eq!(children_ticks(stat), Some(27));
        assert!(of_children().unwrap() >= 0.0);
    }

    #[test]
    fn the_time_on_the_cpu_is_the_first_field() {
        assert_eq!(time_on_cpu("1234 56 7\n"), Some(1234));
        assert_eq!(time_on_cpu(""), None);
        assert!(of_process(std::process::id()).unwrap() > Duration::ZERO);
        assert!(of_this_process() > Duration::ZERO);
    }
}
