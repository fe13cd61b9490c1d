//! Waking those who wait for claimable tasks.
//!
//! Managers and workers without work wait in rooms, one for everybody with the same tags and capacity, in the order in which
//! they came: `n` ready tasks wake at most `n` of each room, so a thousand idle managers do not all ask for one task.
//! Whoever waits costs nothing.
//!
//! No wake-up is lost: a waiter takes its place *before* it claims, and tasks are announced *after* their commit. Either
//! the claim sees the commit, or the announcement comes after the place was taken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::protocol::Capacity;

/// Who waits for work, and how they are woken.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct WorkBoard {
    rooms: Mutex<HashMap<RoomKey, Arc<Room>>>,
}

/// What those in a room have in common: whatever one of them can take, each can.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::coordinator) struct RoomKey {
    /// Sorted.
    pub(in crate::coordinator) tags: Vec<String>,
    pub(in crate::coordinator) capacity: Capacity,
}

/// Those who wait, in order of arrival.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct Room {
    door: Notify,
    waiting: AtomicU64,
}

impl WorkBoard {
    /// The room for holders like this.
    pub(in crate::coordinator) fn room(&self, key: RoomKey) -> Arc<Room> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(rooms.entry(key).or_default())
    }

    /// Says that `ready` tasks have become claimable.
    pub(super) fn announce(&self, ready: u64) {
        if ready == 0 {
            return;
        }
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        // A room that nobody holds is empty; the next holder like that gets a fresh one.
        rooms.retain(|_, room| Arc::strong_count(room) > 1);
        for room in rooms.values() {
            for _ in 0..ready.min(room.waiting.load(Ordering::SeqCst)) {
                room.door.notify_one();
            }
        }
    }

    /// Wakes everybody: what they may have has changed.
    pub(super) fn announce_all(&self) {
        self.announce(u64::MAX);
    }
}

impl Room {
    /// Takes a place in the queue. The claim that decides whether to wait comes after this.
    pub(in crate::coordinator) fn enter(&self) -> Place<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Place { room: self }
    }
}

/// A place in a room; leaving it passes an unused wake-up on.
pub(in crate::coordinator) struct Place<'a> {
    room: &'a Room,
}

impl Place<'_> {
    /// Resolves when there may be work. Must be enabled before the claim that precedes the wait.
    pub(in crate::coordinator) fn called(&self) -> tokio::sync::futures::Notified<'_> {
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

    fn tags(tags: &[&str]) -> RoomKey {
        RoomKey {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            capacity: Capacity::default(),
        }
    }

    #[test]
    fn as_many_of_each_room_are_woken_as_there_are_tasks_and_the_first_come_first() {
        let board = WorkBoard::default();
        let (room, other) = (board.room(tags(&["a"])), board.room(tags(&[])));
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
        let room = board.room(tags(&[]));
        let (first, second) = (room.enter(), room.enter());
        let (mut gone, mut left) = (Box::pin(first.called()), Box::pin(second.called()));
        gone.as_mut().enable();
        left.as_mut().enable();
        board.announce(1);
        drop(gone);
        assert!(left.now_or_never().is_some());
    }

    #[test]
    fn a_room_that_nobody_waits_in_is_forgotten() {
        let board = WorkBoard::default();
        drop(board.room(tags(&["gone"])));
        let _kept = board.room(tags(&[]));
        board.announce(1);
        assert_eq!(board.rooms.lock().unwrap().len(), 1);
    }
}
