//! Round trips between processes: the bridge beside the bare transport, a Unix socket and HTTP.
//!
//! ```text
//!   this process                                    client processes (this executable, a hidden command)
//!   [`stage`]: server of one path  <---measured--->  [`client`]: one connection each, calls when told to
//!   measure: rounds over all cases <---orders------  [`process`], [`wire`]: a control socket per client
//! ```
//!
//! All servers and clients of a run are open from its beginning, and whoever is not measured blocks. Every round visits
//! every case once; figures are medians over the rounds. CPU time of both sides is separate because they are processes.

mod case;
pub mod client;
mod figures;
mod histogram;
pub(super) mod placement;
mod plan;
pub mod plot;
mod process;
pub mod raw;
mod recorder;
mod report;
mod spooling;
pub(super) mod stage;
mod wire;

use std::time::{Duration, Instant};

use super::cpu;
use super::error::{BenchError, io};
use super::host::Host;
use super::interrupt::Interrupt;
use placement::Placement;
use stage::{Setting, Stage};
use wire::Run;

pub use case::{Answerer, Case, MAX_STORED, Operation, Route, UnknownRoute};
pub use figures::{Measurement, Ratios, Row};
pub use plan::{Cores, Plan, Selection, SweepPlan};

use figures::Turn;

/// What a measurement should take at most, start and end of all processes included.
const BUDGET: Duration = Duration::from_secs(55);
/// Wall time of a turn beyond the time in which calls are made: orders, prepared replies, waking up.
const OVERHEAD: f64 = 1.5;
const SHORTEST_TURN: Duration = Duration::from_millis(10);
const LONGEST_TURN: Duration = Duration::from_millis(300);

/// Runs all rounds; `after_round` hears of each.
///
/// # Errors
/// When a server or client of a path cannot be started or used.
pub fn measure(plan: &Plan, mut after_round: impl FnMut(u32)) -> Result<Measurement, BenchError> {
    let began = Instant::now();
    let host = Host::look();
    // Before any thread is started, because threads inherit it.
    let placement = match plan.cores {
        Cores::Shared => Placement::default(),
        Cores::Apart => Placement::apart()?,
    };
    // Two threads, as a manager has.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(io("start a runtime"))?;
    runtime.block_on(async {
        let mut interrupt = Interrupt::listen()?;
        let mut open = interrupt.or(Open::all(plan, placement)).await?;
        let turn = plan
            .turn
            .unwrap_or_else(|| affordable_turn(plan, began.elapsed()));
        let rounds = open.rounds(plan, turn, &mut after_round);
        let measured = interrupt.or(rounds).await;
        // Everything is closed whatever happened; the first error is the one to tell.
        let closed = open.close().await;
        let turns = measured?;
        closed?;
        Ok(Measurement::of(plan, host, turn, &turns))
    })
}

/// Time of calls per case and round that keeps the whole within its budget.
fn affordable_turn(plan: &Plan, gone: Duration) -> Duration {
    // Closing takes about as long as opening.
    let left = BUDGET.saturating_sub(gone * 2).as_secs_f64();
    let turns = plan.cases.len() as f64 * f64::from(plan.rounds);
    Duration::from_secs_f64(left / turns.max(1.0) / OVERHEAD).clamp(SHORTEST_TURN, LONGEST_TURN)
}

/// Every stage of a run.
#[derive(Default)]
struct Open(Vec<(Setting, Box<dyn Stage>)>);

impl Open {
    async fn all(plan: &Plan, placement: Placement) -> Result<Self, BenchError> {
        let mut open = Self::default();
        for setting in plan.settings() {
            match stage::open(setting, placement).await {
                Ok(stage) => open.0.push((setting, stage)),
                Err(error) => {
                    // The error is the one to tell, not what follows from it.
                    let _ = open.close().await;
                    return Err(error);
                }
            }
        }
        Ok(open)
    }

    /// Turns of every case, in the order of the plan.
    async fn rounds(
        &mut self,
        plan: &Plan,
        length: Duration,
        after_round: &mut impl FnMut(u32),
    ) -> Result<Vec<Vec<Turn>>, BenchError> {
        let mut turns = vec![Vec::new(); plan.cases.len()];
        for round in 0..plan.rounds {
            for (case, turns) in plan.cases.iter().zip(&mut turns) {
                let stage = self.0.iter_mut().find(|(setting, _)| setting.fits(case));
                let (_, stage) = stage.expect("every case has a stage");
                turns.push(take_turn(&mut **stage, case, plan, length).await?);
            }
            after_round(round + 1);
        }
        Ok(turns)
    }

    async fn close(self) -> Result<(), BenchError> {
        let mut closed = Ok(());
        for (_, stage) in self.0 {
            let now = stage.close().await;
            closed = closed.and(now);
        }
        closed
    }
}

/// Measures one case once.
async fn take_turn(
    stage: &mut dyn Stage,
    case: &Case,
    plan: &Plan,
    length: Duration,
) -> Result<Turn, BenchError> {
    let active = usize::from(plan.active.min(case.clients));
    stage.begin(case, active).await?;
    let mut turn = Turn::default();
    let began = Instant::now();
    while turn.wall() < length {
        stage.refill(case, active).await?;
        let run = Run {
            operation: case.operation,
            payload_bytes: case.payload_bytes,
            calls: stage.calls(case, active),
            at_most: length - turn.wall(),
            pause: plan.pause,
        };
        let before = cpu::of_this_process();
        let answers = stage.team().run(active, &run).await?;
        turn.add(&answers, cpu::of_this_process().saturating_sub(before));
        // Where preparing takes most of the time, a turn ends before it has all its calls.
        if began.elapsed() > length * 3 {
            break;
        }
    }
    stage.rest().await?;
    Ok(turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_fits_its_budget() {
        let plan = Plan::compared(&Selection::default());
        let turn = affordable_turn(&plan, Duration::from_secs(10));
        let all = turn.as_secs_f64() * OVERHEAD * plan.cases.len() as f64 * f64::from(plan.rounds);
        assert!(all <= 35.1, "{turn:?}");
        let late = affordable_turn(&plan, Duration::from_secs(100));
        assert_eq!(late, SHORTEST_TURN);
    }
}
