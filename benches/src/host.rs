//! What a figure says nothing without: the machine it was measured on.

use serde::Serialize;

/// Facts about this machine. Field names are JSON keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Host {
    /// Cores that this process may use.
    pub cores: usize,
    /// Name of the processor; empty where the kernel does not tell.
    pub processor: String,
    /// Release of the kernel.
    pub kernel: String,
    /// `x86_64` or `aarch64`.
    pub architecture: &'static str,
    /// Runnable threads, averaged over the minute before the measurement: above 0.5 somebody else is working.
    pub load_before: f64,
}

impl Host {
    /// This machine, now.
    #[must_use]
    pub fn look() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor(&read("/proc/cpuinfo")),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            architecture: std::env::consts::ARCH,
            load_before: load(&read("/proc/loadavg")),
        }
    }
}

fn processor(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':'));
    name.map_or_else(String::new, |(_, name)| name.trim().to_owned())
}

fn load(loadavg: &str) -> f64 {
    let first = loadavg.split_ascii_whitespace().next();
    first.and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_in_the_kernels_files() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 3.00GHz\n";
        assert_eq!(processor(cpuinfo), "Some CPU @ 3.00GHz");
        assert_eq!(processor(""), "");
        assert_eq!(load("0.25 0.10 0.05 1/100 4\n"), 0.25);
        assert!(Host::look().cores > 0);
    }
}
