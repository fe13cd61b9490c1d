//! Memory of processes and of a transport, as the kernel counts it.

use std::os::unix::fs::MetadataExt;

use mitosis_bridge::TransportRoot;

use super::error::{BenchError, io};

/// Unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Proportional set size of a process: shared pages count in proportion to the processes that share them.
pub(super) fn pss_bytes(pid: u32) -> Result<u64, BenchError> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let text = text.map_err(io("read the memory of a process"))?;
    let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    pss(&text)
        .ok_or_else(invalid)
        .map_err(io("read the memory of a process"))
}

fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Bytes that the shared memory of a root really takes: pages that nobody touched do not count.
pub(super) fn of_root(root: &TransportRoot) -> Result<u64, BenchError> {
    let files = root.shared_memory_files();
    let files = files.map_err(io("list the shared memory"))?;
    let blocks = files
        .iter()
        // A file that went meanwhile takes nothing.
        .filter_map(|file| std::fs::metadata(file).ok())
        .map(|file| file.blocks());
    Ok(blocks.sum::<u64>() * BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proportional_size_is_found_among_the_others() {
        let text = "00400000-7fff ---p 00000000 00:00 0 [rollup]\nRss:  9 kB\nPss:   5 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(pss(text), Some(5 * 1024));
        assert_eq!(pss("Rss: 9 kB\n"), None);
        assert!(pss_bytes(std::process::id()).unwrap() > 0);
    }
}
