//! `tune`: how the pollers of a running manager and its workers wait.

use anyhow::anyhow;
use clap::Args;
use mitosis_bridge::MAX_WORKERS;
use uuid::Uuid;

use super::failure::Failure;
use super::output;
use super::poll::{Spin, setting};
use super::reach::{Act, Reach, ReachArgs, refused};
use super::table::table;
use crate::exit_code::Exit;
use crate::protocol::tuning::{
    PollText, PollerState, Pollers, SingleWorker, TuneOrder, WorkerPoller,
};

const HELP: &str = "\
Strategies: busy never sleeps; adaptive spins for a budget after activity and then sleeps until it is woken;
interval:<pause> (1us to 1s) looks, then sleeps; event always sleeps until it is woken. Without a choice of processes
the setting is for all of them; without --poll and --spin nothing is changed, and what is in force is shown.

A setting lasts as long as the manager's process; the next life of a worker begins with it. `up`, `run` and `manager`
take --poll and --spin for their start.

Examples:
  mitosis tune                                   what is in force
  mitosis tune --poll adaptive --spin 20us       everything
  mitosis tune --poll busy --worker 0 --worker 1
  mitosis tune --poll event --workers            all workers, not the manager
  mitosis tune --poll busy --manager-process     the manager's poller alone";

/// Change how pollers wait while they run, or show how they do.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct TuneArgs {
    /// How pollers are to wait: busy, adaptive, adaptive:<spin>, interval:<pause> or event.
    #[arg(long, value_name = "STRATEGY")]
    poll: Option<PollText>,
    /// How long an adaptive poller spins after activity, 0 to 10ms; alone it means adaptive.
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    spin: Option<Spin>,
    /// This worker alone, by its number; may be repeated.
    #[arg(long, value_name = "N", conflicts_with = "workers", value_parser = clap::value_parser!(u16).range(..=i64::from(MAX_WORKERS - 1)))]
    worker: Vec<u16>,
    /// All workers.
    #[arg(long)]
    workers: bool,
    /// The manager's own poller.
    #[arg(long)]
    manager_process: bool,
    /// Which manager; not needed where one is connected [see: mitosis managers].
    #[arg(long, value_name = "UUID")]
    manager: Option<Uuid>,
    /// One JSON object on stdout: `manager_uuid`, `manager` and `workers` with `poll`, `changed` and `state`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

impl TuneArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let order = self.order()?;
        let service = Reach::to_act(&self.reach).await?;
        let manager = match self.manager {
            Some(manager) => manager,
            None => only_manager(&service).await?,
        };
        let client = service.client();
        let pollers = if order.is_question() {
            client.pollers(manager).await
        } else {
            client.tune(manager, &order).await
        };
        let pollers = pollers.map_err(refused)?;
        if self.json {
            output::json(&serde_json::json!({
                "manager_uuid": manager, "manager": pollers.manager, "workers": pollers.workers,
            }))?;
        } else {
            output::text(&shown(&pollers))?;
        }
        for words in notes(&pollers, &order) {
            output::note(&words);
        }
        Ok(Exit::Ok)
    }

    fn order(&self) -> Result<TuneOrder, Failure> {
        let chosen = self.workers || self.manager_process || !self.worker.is_empty();
        let Some(poll) = setting(self.poll.as_ref(), self.spin.as_ref())? else {
            if chosen {
                return Err(Failure::usage(anyhow!(
                    "processes are chosen and no setting; add --poll, or leave them away to see what is in force"
                )));
            }
            return Ok(TuneOrder::default());
        };
        let single = self.worker.iter().map(|worker| SingleWorker {
            worker: *worker,
            poll: poll.clone(),
        });
        Ok(TuneOrder {
            manager: (self.manager_process || !chosen).then(|| poll.clone()),
            workers: (self.workers || !chosen).then(|| poll.clone()),
            single: single.collect(),
        })
    }
}

async fn only_manager(service: &Act) -> Result<Uuid, Failure> {
    let managers = service.client().managers().await.map_err(refused)?;
    let connected: Vec<_> = managers
        .iter()
        .filter(|manager| manager.connected)
        .collect();
    match connected[..] {
        [manager] => Ok(manager.uuid),
        [] => Err(Failure::system(anyhow!(
            "no manager is connected to this coordinator; start one with `mitosis manager`"
        ))),
        _ => {
            let names = connected
                .iter()
                .map(|manager| format!("\n  {} on {}", manager.uuid, manager.host));
            Err(Failure::usage(anyhow!(
                "several managers are connected; name one with --manager:{}",
                names.collect::<String>()
            )))
        }
    }
}

/// A line for the manager and one for each run of workers that are alike.
fn shown(pollers: &Pollers) -> String {
    let manager = &pollers.manager;
    let word = |changed: bool| if changed { "yes" } else { "no" }.to_owned();
    let mut rows = vec![vec![
        "manager".to_owned(),
        manager.poll.to_string(),
        word(manager.changed),
        PollerState::InForce.as_str().to_owned(),
    ]];
    let alike = |one: &WorkerPoller, next: &WorkerPoller| {
        (&one.poll, one.changed, one.state) == (&next.poll, next.changed, next.state)
    };
    for run in pollers.workers.chunk_by(alike) {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        let name = if run.len() == 1 {
            format!("worker {}", first.worker)
        } else {
            format!("workers {}-{}", first.worker, last.worker)
        };
        rows.push(vec![
            name,
            first.poll.to_string(),
            word(first.changed),
            first.state.as_str().to_owned(),
        ]);
    }
    table(&["PROCESS", "POLL", "CHANGED", "STATE"], &rows)
}

/// What an operator should know of workers that an order concerned and that do not act on it.
fn notes(pollers: &Pollers, order: &TuneOrder) -> Vec<String> {
    let named = |worker: &&WorkerPoller| {
        let alone = order.single.iter().any(|one| one.worker == worker.worker);
        order.workers.is_some() || alone
    };
    let words = |worker: &WorkerPoller| {
        let number = worker.worker;
        match worker.state {
            PollerState::InForce => None,
            PollerState::Pending => Some(format!(
                "worker {number} has not taken its setting up: it is starting, stopped or hangs; look again with \
                 `mitosis tune`"
            )),
            PollerState::Gone => Some(format!(
                "worker {number} is gone; the manager starts another one, which begins with the setting"
            )),
        }
    };
    let concerned = pollers.workers.iter().filter(named);
    concerned.filter_map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tuning::ManagerPoller;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        tune: TuneArgs,
    }

    fn order(words: &[&str]) -> Result<TuneOrder, Failure> {
        let line = Line::try_parse_from([&["tune"], words].concat());
        line.unwrap().tune.order()
    }

    fn busy() -> PollText {
        "busy".parse().unwrap()
    }

    #[test]
    fn a_setting_is_for_everything_unless_processes_are_chosen() {
        let all = order(&["--poll", "busy"]).unwrap();
        assert_eq!((all.manager, all.workers), (Some(busy()), Some(busy())));
        let workers = order(&["--poll", "busy", "--workers"]).unwrap();
        assert_eq!((workers.manager, workers.workers), (None, Some(busy())));
        let own = order(&["--poll", "busy", "--manager-process", "--worker", "3"]).unwrap();
        assert_eq!((own.manager, own.workers), (Some(busy()), None));
        assert_eq!(own.single[0].worker, 3);
        assert!(order(&[]).unwrap().is_question());
        assert!(order(&["--workers"]).is_err());
    }

    #[test]
    fn bad_input_is_refused_by_the_parser_in_words() {
        let refusal = |words: &[&str]| {
            let line = Line::try_parse_from([&["tune"], words].concat());
            line.unwrap_err().to_string()
        };
        assert!(refusal(&["--poll", "eager"]).contains("expected busy, adaptive"));
        assert!(refusal(&["--poll", "interval:9h"]).contains("such as 50us"));
        assert!(refusal(&["--spin", "-1us"]).contains("bad duration"));
        assert!(refusal(&["--worker", "256"]).contains("255"));
    }

    #[test]
    fn workers_that_are_alike_share_a_line_and_those_that_do_not_act_are_noted() {
        let worker = |worker, state| WorkerPoller {
            worker,
            poll: busy(),
            changed: true,
            state,
        };
        let pollers = Pollers {
            manager: ManagerPoller {
                poll: busy(),
                changed: false,
            },
            workers: vec![
                worker(0, PollerState::InForce),
                worker(1, PollerState::InForce),
                worker(2, PollerState::Gone),
            ],
        };
        let text = shown(&pollers);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "workers 0-1  busy  yes      in force");
        assert_eq!(lines[3], "worker 2     busy  yes      gone");
        let order = order(&["--poll", "busy", "--worker", "2"]).unwrap();
        assert_eq!(notes(&pollers, &order).len(), 1);
        assert!(notes(&pollers, &TuneOrder::default()).is_empty());
    }
}
