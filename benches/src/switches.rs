//! How often the threads of a process have gone to sleep, which is how often something has woken them.

use std::io;

/// Voluntary context switches of all living threads of a process. Looking wakes none of them.
///
/// # Errors
/// When the process is gone.
pub(super) fn of_process(pid: u32) -> io::Result<u64> {
    let mut switches = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        match std::fs::read_to_string(thread?.path().join("status")) {
            Ok(text) => switches += voluntary(&text).ok_or(io::ErrorKind::InvalidData)?,
            // It ended between the list and the look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(switches)
}

fn voluntary(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let number = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    number.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_and_a_sleep_is_counted() {
        let status = "Name:\ta\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(voluntary(status), Some(12));
        let before = of_process(std::process::id()).unwrap();
        let (answer, question) = std::sync::mpsc::sync_channel::<()>(1);
        let waiting = std::thread::Builder::new()
            .name("waiting".to_owned())
            .spawn(move || {
                // Nobody sends: the wait itself is a sleep, counted for as long as its thread lives.
                let _ = question.recv_timeout(std::time::Duration::from_millis(5));
                of_process(std::process::id()).unwrap()
            });
        assert!(waiting.unwrap().join().unwrap() > before);
        drop(answer);
    }
}
