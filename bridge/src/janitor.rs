//! Cleaning beside the poller: what dead workers left of the transport, and their files of large payloads.
//!
//! One thread per server. What is to be cleaned is a set of incarnations, not a queue of jobs: the poller adds one when it
//! has drained it, and one goes out of the set when nothing of it is left. A pass that fails, or a wake-up that finds the
//! thread busy, loses nothing: the set is looked at again, with growing pauses, for as long as the manager lives.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flume::{Receiver, RecvTimeoutError, Sender};

use crate::ids::Incarnation;
use crate::root::TransportRoot;
use crate::spill::SpillDir;

/// First pause after a pass that left something.
const RETRY: Duration = Duration::from_millis(50);
/// Longest pause between two passes.
const MAX_RETRY: Duration = Duration::from_secs(5);
/// How long what is left is tried at the end.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Incarnations to clean after. The lock is held for a few instructions by poller and janitor, never by an async caller
/// and never during a pass.
#[derive(Debug, Clone, Default)]
struct Dead(Arc<Mutex<BTreeSet<Incarnation>>>);

impl Dead {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<Incarnation>> {
        // No panic can happen while it is held; the set is valid in any case.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cleans after everybody once; whether somebody is left.
    fn pass(&self, clean: &mut impl FnMut(Incarnation) -> io::Result<()>) -> bool {
        let due: Vec<_> = self.lock().iter().copied().collect();
        for incarnation in due {
            match clean(incarnation) {
                Ok(()) => {
                    self.lock().remove(&incarnation);
                }
                Err(error) => tracing::debug!(%incarnation, %error, "not clean yet"),
            }
        }
        !self.lock().is_empty()
    }
}

/// Tells the thread whom to clean after.
#[derive(Debug, Clone)]
pub(crate) struct JanitorHandle {
    dead: Dead,
    /// Filled by the poller; full: a look is due anyway; closed: the janitor has ended.
    look_tx: Sender<()>,
}

impl JanitorHandle {
    /// Has everything removed that an incarnation left. Its ports must be dropped.
    pub(crate) fn clean(&self, incarnation: Incarnation) {
        self.dead.lock().insert(incarnation);
        let _told_or_due = self.look_tx.try_send(());
    }
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Janitor {
    thread: JoinHandle<()>,
}

impl Janitor {
    pub(crate) fn spawn(root: &TransportRoot) -> io::Result<(Self, JanitorHandle)> {
        let (root, spill) = (root.clone(), SpillDir::new(root.path()));
        Self::spawn_with(move |incarnation| {
            spill.sweep(incarnation);
            root.remove_life(incarnation)
        })
    }

    fn spawn_with(
        mut clean: impl FnMut(Incarnation) -> io::Result<()> + Send + 'static,
    ) -> io::Result<(Self, JanitorHandle)> {
        let (look_tx, look_rx) = flume::bounded(1);
        let dead = Dead::default();
        let handle = JanitorHandle {
            dead: dead.clone(),
            look_tx,
        };
        let thread = std::thread::Builder::new()
            .name("mitosis-janitor".to_owned())
            .spawn(move || {
                crate::signals::block_all();
                run(&dead, &look_rx, &mut clean);
            })?;
        Ok((Self { thread }, handle))
    }

    /// Waits for the last pass. Every handle must be dropped before.
    pub(crate) fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the janitor panicked");
        }
    }
}

fn run(dead: &Dead, look_rx: &Receiver<()>, clean: &mut impl FnMut(Incarnation) -> io::Result<()>) {
    let mut pause = None;
    loop {
        let told = match pause {
            None => look_rx.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(pause) => look_rx.recv_timeout(pause),
        };
        if told == Err(RecvTimeoutError::Disconnected) {
            break;
        }
        let left = dead.pass(clean);
        let longer = |pause: Duration| (pause * 2).min(MAX_RETRY);
        pause = left.then(|| pause.map_or(RETRY, longer));
    }
    let last = Instant::now() + LAST_PATIENCE;
    while dead.pass(clean) && Instant::now() < last {
        // Nobody can be added: this is a pause.
        std::thread::park_timeout(RETRY);
    }
    let left = dead.lock().len();
    if left > 0 {
        tracing::debug!(left, "what is not clean yet goes with the root");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn every_death_is_cleaned_after_however_many_come_at_once_and_however_often_it_fails() {
        let tries = Arc::new(Mutex::new(HashMap::<Incarnation, u32>::new()));
        let counted = tries.clone();
        let (janitor, handle) = Janitor::spawn_with(move |incarnation| {
            let mut counted = counted.lock().unwrap();
            let tries = counted.entry(incarnation).or_default();
            *tries += 1;
            if incarnation.0 % 100 == 0 && *tries < 3 {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            Ok(())
        })
        .unwrap();
        for number in 0..5_000 {
            handle.clean(Incarnation(number));
        }
        drop(handle);
        janitor.join();
        let tries = tries.lock().unwrap();
        let all = (0..5_000).all(|number| {
            let wanted = if number % 100 == 0 { 3 } else { 1 };
            tries.get(&Incarnation(number)) == Some(&wanted)
        });
        assert!(all, "{} of 5000", tries.len());
    }

    #[test]
    fn what_fails_at_first_is_cleaned_while_the_manager_lives() {
        let (done_tx, done_rx) = flume::bounded(1);
        let mut tries = 0;
        let (janitor, handle) = Janitor::spawn_with(move |incarnation| {
            tries += 1;
            if tries < 4 {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            done_tx.try_send(incarnation).map_err(io::Error::other)
        })
        .unwrap();
        handle.clean(Incarnation(7));
        let cleaned = done_rx.recv_timeout(Duration::from_secs(20));
        assert_eq!(cleaned, Ok(Incarnation(7)));
        drop(handle);
        janitor.join();
    }
}
