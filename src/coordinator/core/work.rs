//! Waking those who wait for claimable tasks.
//!
//! Manager sessions subscribe to a version that moves with every change; each gets at most one hint for it. Workers
//! wait in rooms, one per set of tags, in the order in which they came: `n` ready tasks wake at most `n` of each room,
//! so a thousand idle workers do not all ask for one task.
//!
//! No wake-up is lost: a waiter takes its place (or notes the version) *before* it claims, and tasks are announced
//! *after* their commit. Either the claim sees the commit, or the announcement comes after the place was taken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

/// Who waits for work, and how they are woken.
#[derive(Debug)]
pub(in crate::coordinator) struct WorkBoard {
    /// Moves with every announcement. Never closed while a [`WorkBoard`] lives.
    version: watch::Sender<u64>,
    rooms: Mutex<HashMap<Vec<String>, Arc<Room>>>,
}

/// Workers with the same tags, in order of arrival.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct Room {
    door: Notify,
    waiting: AtomicU64,
}

impl Default for WorkBoard {
    fn default() -> Self {
        Self {
            version: watch::Sender::new(0),
            rooms: Mutex::default(),
        }
    }
}

impl WorkBoard {
    /// A receiver that sees every announcement from now on.
    pub(in crate::coordinator) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The room for workers with these tags.
    pub(super) fn room(&self, tags: &[String]) -> Arc<Room> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(rooms.entry(tags.to_vec()).or_default())
    }

    /// Says that `ready` tasks have become claimable.
    pub(super) fn announce(&self, ready: u64) {
        if ready == 0 {
            return;
        }
        self.version
            .send_modify(|version| *version = version.wrapping_add(1));
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        // A room that nobody holds is empty; the next worker with these tags gets a fresh one.
        rooms.retain(|_, room| Arc::strong_count(room) > 1);
        for room in rooms.values() {
            for _ in 0..ready.min(room.waiting.load(Ordering::SeqCst)) {
                room.door.notify_one();
            }
        }
    }
}

impl Room {
    /// Takes a place in the queue. The claim that decides whether to wait comes after this.
    pub(super) fn enter(&self) -> Place<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Place { room: self }
    }
}

/// A place in a room; leaving it passes an unused wake-up on.
pub(super) struct Place<'a> {
    room: &'a Room,
}

impl Place<'_> {
    /// Resolves when there may be work. Must be enabled before the claim that precedes the wait.
    pub(super) fn called(&self) -> tokio::sync::futures::Notified<'_> {
        self.room.door.notified()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.room.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    fn tags(tags: &[&str]) -> Vec<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    #[test]
    fn as_many_of_each_room_are_woken_as_there_are_tasks_and_the_first_come_first() {
        let board = WorkBoard::default();
        let (room, other) = (board.room(&tags(&["a"])), board.room(&[]));
        let places: Vec<_> = (0..3).map(|_| room.enter()).collect();
        let mut called: Vec<_> = places
            .iter()
            .map(|place| Box::pin(place.called()))
            .collect();
        for waiting in &mut called {
            waiting.as_mut().enable();
        }
        let place = other.enter();
        let mut elsewhere = pin!(place.called());
        elsewhere.as_mut().enable();
        board.announce(2);
        let woken: Vec<_> = called
            .into_iter()
            .map(|waiting| waiting.now_or_never().is_some())
            .collect();
        assert_eq!(woken, [true, true, false]);
        assert!(elsewhere.now_or_never().is_some());
    }

    #[test]
    fn a_waiter_that_goes_away_passes_its_wake_up_on() {
        let board = WorkBoard::default();
        let room = board.room(&[]);
        let (first, second) = (room.enter(), room.enter());
        let (mut gone, mut left) = (Box::pin(first.called()), Box::pin(second.called()));
        gone.as_mut().enable();
        left.as_mut().enable();
        board.announce(1);
        drop(gone);
        assert!(left.now_or_never().is_some());
    }

    #[test]
    fn a_subscriber_sees_what_is_announced_after_it_looked() {
        let board = WorkBoard::default();
        let seen = board.subscribe();
        board.announce(0);
        assert!(!seen.has_changed().unwrap());
        board.announce(1);
        assert!(seen.has_changed().unwrap());
    }

    #[test]
    fn a_room_without_workers_is_forgotten() {
        let board = WorkBoard::default();
        drop(board.room(&tags(&["gone"])));
        let _kept = board.room(&[]);
        board.announce(1);
        assert_eq!(board.rooms.lock().unwrap().len(), 1);
    }
}
