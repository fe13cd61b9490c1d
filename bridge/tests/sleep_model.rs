//! The hand-over between a sleeper and its senders in every interleaving and with every value that a relaxed load may
//! return: loom runs `bridge/src/sleep.rs` itself, compiled with loom's atomics.
//!
//! A lost wake-up is a sleeper that waits for ever, which loom reports as a deadlock; so the model has no bound of a wait.
//! Left out: a sender that dies between its swap and its ring (its doorbell hangs up instead), and what is published, here a
//! relaxed counter, which promises less than any queue. Two further models lack one step each and must fail, so that a
//! model that has become blind does not go unnoticed.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot start its other half has failed"
)]

/// What `sleep.rs` takes its atomics from.
mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};
}
#[path = "../src/sleep.rs"]
mod sleep;

use std::env;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

use loom::sync::Arc;
use loom::thread::Thread;

use atomic::{AtomicU32, Ordering};

/// The steps of a sleeper before it blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Steps {
    /// As written.
    All,
    /// The flag without the fence behind it.
    NoFence,
    /// No look between the announcement and the wait.
    NoSecondLook,
}

/// Variable by which a test runs another one without a step.
const STEPS: &str = "SLEEP_MODEL_STEPS";

impl Steps {
    fn asked_for() -> Self {
        match env::var(STEPS).as_deref() {
            Ok("no-fence") => Self::NoFence,
            Ok("no-second-look") => Self::NoSecondLook,
            _ => Self::All,
        }
    }
}

/// What senders and the sleeper share.
struct Shared {
    asleep: AtomicU32,
    published: AtomicU32,
    /// Rings that were not heard yet.
    bell: AtomicU32,
    sleeper: Thread,
}

impl Shared {
    /// The caller is the sleeper.
    fn new() -> Self {
        Self {
            asleep: AtomicU32::new(0),
            published: AtomicU32::new(0),
            bell: AtomicU32::new(0),
            sleeper: loom::thread::current(),
        }
    }

    /// N1 to N3.
    fn send(&self) {
        self.published.fetch_add(1, Relaxed);
        if sleep::claim(&self.asleep) {
            self.bell.swap(1, Ordering::AcqRel);
            self.sleeper.unpark();
        }
    }

    /// S1 to S5, until everything is seen.
    fn receive(&self, everything: u32, steps: Steps) {
        let mut seen = 0;
        while seen < everything {
            if steps == Steps::NoFence {
                self.asleep.swap(1, Ordering::SeqCst);
            } else {
                sleep::announce(&self.asleep);
            }
            if steps == Steps::NoSecondLook || self.published.load(Relaxed) == seen {
                self.block();
            }
            sleep::retract(&self.asleep);
            seen = self.published.load(Relaxed);
        }
    }

    /// S4: without a bound.
    fn block(&self) {
        while self.bell.swap(0, Ordering::AcqRel) == 0 {
            loom::thread::park();
        }
    }
}

/// Runs senders that publish so often each against one sleeper, in every way, or with at most so many preemptions.
fn explore(senders: u32, each: u32, preemptions: Option<usize>) {
    let steps = Steps::asked_for();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        let shared = Arc::new(Shared::new());
        for _ in 0..senders {
            let shared = Arc::clone(&shared);
            // Nobody joins: the model ends when every thread has, and a late ring would disturb a join.
            loom::thread::spawn(move || (0..each).for_each(|_| shared.send()));
        }
        shared.receive(senders * each, steps);
    });
}

#[test]
fn one_sender_never_leaves_a_sleeper_alone_with_its_news() {
    explore(1, 2, None);
}

#[test]
fn two_senders_never_leave_a_sleeper_alone_with_their_news() {
    explore(2, 1, Some(4));
}

/// Runs the first test without a step, in a process of its own: loom does not survive a model that fails.
#[track_caller]
fn deadlocks(steps: &str) {
    let test = "one_sender_never_leaves_a_sleeper_alone_with_its_news";
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(STEPS, steps)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && words.contains("deadlock"),
        "{words}"
    );
}

#[test]
fn without_the_fence_a_wake_up_is_lost() {
    deadlocks("no-fence");
}

#[test]
fn without_the_second_look_a_wake_up_is_lost() {
    deadlocks("no-second-look");
}
