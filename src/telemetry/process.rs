//! What a process uses, and how much room its machine has left; read from the system at a scrape.
//!
//! Owned by nobody: [`append`] writes about this process, [`usage`] tells of another one of the same user. Blocks for the
//! time of some reads of `/proc` and of one `statvfs` per place.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::exposition::Families;
use super::names;

/// Where shared memory lies.
const SHARED_MEMORY: &str = "/dev/shm";

/// Places whose file systems are watched, beside shared memory.
static PLACES: Mutex<Vec<(&'static str, PathBuf)>> = Mutex::new(Vec::new());

/// Watches the file system of a role's directory from now on. A second directory of one name replaces the first.
pub fn watch_storage(place: &'static str, dir: PathBuf) {
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    places.retain(|(known, _)| *known != place);
    places.push((place, dir));
}

/// CPU time and memory of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time, children excluded.
    pub cpu: Duration,
    /// Resident memory.
    pub memory_bytes: u64,
}

/// What a process uses; `None` when it is gone.
#[must_use]
pub fn usage(pid: u32) -> Option<Usage> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields are counted from behind the name, which may contain anything.
fn parse(stat: &str) -> Option<Usage> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // proc(5): utime, stime are fields 14 and 15, rss is field 24; the first one here is field 3.
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let pages: u64 = fields.nth(8)?.parse().ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let millis = (user + system).saturating_mul(1000) / ticks_per_second;
    Some(Usage {
        cpu: Duration::from_millis(millis),
        memory_bytes: pages.saturating_mul(page),
    })
}

/// Appends what this process uses and the room that is left.
pub(super) fn append(families: &mut Families<'_>) {
    let usage = usage(std::process::id()).unwrap_or_default();
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let values = [
        (names::PROCESS_CPU, usage.cpu.as_secs_f64()),
        (names::PROCESS_MEMORY, float(usage.memory_bytes)),
        (names::PROCESS_DESCRIPTORS, float(descriptors as u64)),
        (names::PROCESS_DESCRIPTORS_LIMIT, float(limit)),
    ];
    for (name, value) in values {
        families.begin(name).value(&[], value);
    }
    append_storage(families);
}

fn append_storage(families: &mut Families<'_>) {
    let places = PLACES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let shared_memory = ("shm", PathBuf::from(SHARED_MEMORY));
    let rooms: Vec<_> = places
        .into_iter()
        .chain([shared_memory])
        .filter_map(|(place, dir)| Some((place, room(&dir)?)))
        .collect();
    let mut free = families.begin(names::STORAGE_FREE);
    for (place, room) in &rooms {
        free.value(&[place], float(room.free_bytes));
    }
    let mut size = families.begin(names::STORAGE_SIZE);
    for (place, room) in &rooms {
        size.value(&[place], float(room.size_bytes));
    }
}

struct Room {
    free_bytes: u64,
    size_bytes: u64,
}

fn room(dir: &Path) -> Option<Room> {
    let figures = rustix::fs::statvfs(dir).ok()?;
    Some(Room {
        free_bytes: figures.f_bavail.saturating_mul(figures.f_frsize),
        size_bytes: figures.f_blocks.saturating_mul(figures.f_frsize),
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the exposition has nothing but floats"
)]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_moves_no_field() {
        let stat = "7 (a ) (b) S 1 7 7 0 -1 0 0 0 0 0 150 50 9 9 20 0 1 0 100 4096 3 0";
        let usage = parse(stat).unwrap();
        let page = u64::try_from(rustix::param::page_size()).unwrap();
        let seconds = 200 / rustix::param::clock_ticks_per_second();
        assert_eq!(
            (usage.cpu.as_secs(), usage.memory_bytes),
            (seconds, 3 * page)
        );
        assert_eq!(parse("7 (gone"), None);
    }

    #[test]
    fn this_process_uses_something_and_a_watched_place_has_room() {
        assert!(usage(std::process::id()).unwrap().memory_bytes > 0);
        watch_storage("manager", std::env::temp_dir());
        let mut text = String::new();
        append(&mut Families::of(&mut text));
        let free = r#"mitosis_storage_free_bytes{place="manager"} "#;
        assert!(text.contains(free), "{text}");
    }
}
