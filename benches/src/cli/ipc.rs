//! `mitosis bench ipc`: round trips between processes, as a table, as JSON, and as a picture.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use mitosis_bridge::PollConfig;

use crate::ipc::plot::Plot;
use crate::ipc::{
    Cores, MAX_STORED, Measurement, Operation, Plan, Route, Row, Selection, SweepPlan, measure,
};
use mitosis::cli::failure::{Failure, OrFail};
use mitosis::cli::output;
use mitosis::cli::table::{size, table};
use mitosis::exit_code::Exit;

/// Largest payload that every path carries.
const MAX_PAYLOAD: i64 = 1 << 20;

const HELP: &str = "\
Every round visits every case once, round-robin; figures are medians over the rounds. Servers run in this process,
clients in processes of their own; all are open from the beginning, and whoever is not measured sleeps. The floor is the
bare transport with both sides spinning. `fetch` takes a prepared reply from the manager's poller (of http-coordinator: a
claim from a SQLite store), `report` is answered once a real spool has it, `echo` comes back from the thread that reads it.
CPU is the share of one core, of the active clients' processes and of the server's.

Examples:
  mitosis bench ipc
  mitosis bench ipc --json --path bridge-busy,bridge-event --clients 1,16,64,256
  mitosis bench ipc --sweep --svg poll.svg";

/// Measure round trips: the bridge beside the bare transport, a Unix socket and HTTP.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct IpcArgs {
    /// Paths to measure, separated by commas [default: all].
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    path: Vec<Route>,
    /// Operations to measure, separated by commas: echo, fetch, report [default: all].
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = operation)]
    operation: Vec<Operation>,
    /// Connected clients, separated by commas [default: 1, and 256 on shared memory].
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: Vec<u16>,
    /// Clients that make calls at the same time; the others are connected and silent.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    active: u16,
    /// Payload bytes, separated by commas [default: 256; 4096 and 65536 with one client].
    #[arg(long, value_name = "BYTES", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=MAX_PAYLOAD))]
    payload: Vec<u32>,
    /// Rounds; figures are medians over them.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Time of calls per case and round, in seconds [default: what lets the whole end within a minute].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Spin budget of bridge-adaptive [default: 50us].
    #[arg(long, value_name = "DURATION", value_parser = spin)]
    spin: Option<Duration>,
    /// Keep the server on the first half of the usable cores and clients on the second; rounds are more alike then.
    #[arg(long)]
    apart: bool,
    /// Measure poll strategies and spin budgets against each other, with pauses between calls, instead of paths.
    #[arg(long, conflicts_with = "path")]
    sweep: bool,
    /// Settings of the sweep, separated by commas, e.g. event,adaptive:20us,busy [default: ten of them].
    #[arg(
        long,
        value_name = "STRATEGY",
        value_delimiter = ',',
        requires = "sweep"
    )]
    poll: Vec<PollConfig>,
    /// Mean of the pauses between calls of the sweep, in seconds; 0 for none [default: 0.0001].
    #[arg(long, value_name = "SECONDS", value_parser = pause, requires = "sweep")]
    pause: Option<Duration>,
    /// Draw the sweep, latency against CPU, into this file.
    #[arg(long, value_name = "FILE", requires = "sweep")]
    svg: Option<PathBuf>,
    /// One JSON object on stdout instead of a table.
    #[arg(long)]
    json: bool,
}

const DEFAULT_PAUSE: Duration = Duration::from_micros(100);

fn operation(text: &str) -> Result<Operation, String> {
    [Operation::Echo, Operation::Fetch, Operation::Report]
        .into_iter()
        .find(|operation| operation.name() == text)
        .ok_or_else(|| format!("unknown operation `{text}`: expected echo, fetch or report"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    within(text, 0.001, 60.0)
}

fn pause(text: &str) -> Result<Duration, String> {
    within(text, 0.0, 1.0)
}

fn within(text: &str, least: f64, most: f64) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| format!("`{text}` is no number of seconds, such as 0.2"))?;
    if (least..=most).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!(
            "{text} is out of range: expected {least} to {most} seconds"
        ))
    }
}

fn spin(text: &str) -> Result<Duration, String> {
    let poll: Result<PollConfig, _> = format!("adaptive:{text}").parse();
    poll.map(|poll| poll.spin)
        .map_err(|error| error.to_string())
}

impl IpcArgs {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let selection = self.selection();
        let plan = if self.sweep {
            let sweep = SweepPlan {
                settings: self.poll.clone(),
                pause: self.pause.unwrap_or(DEFAULT_PAUSE),
            };
            Plan::sweep(&selection, &sweep)
        } else {
            Plan::compared(&selection)
        };
        if plan.cases.is_empty() {
            return Err(Failure::usage(anyhow!(
                "no path can do what was asked for: the bridge echoes up to {} bytes, only the bridge has reports, only the \
                 bridge and http-coordinator (up to {} bytes) have fetches",
                mitosis_bridge::MAX_ECHO,
                MAX_STORED
            )));
        }
        let measurement = measure(&plan, |round| {
            output::note(&format!("round {round}/{}", plan.rounds));
        })
        .map_err(super::failed)?;
        if let Some(file) = &self.svg {
            std::fs::write(file, Plot::of(&measurement).svg())
                .with_context(|| format!("{} cannot be written", file.display()))
                .or_usage()?;
        }
        if self.json {
            output::json(&measurement)?;
        } else {
            output::text(&text(&measurement))?;
        }
        Ok(Exit::Ok)
    }

    fn selection(&self) -> Selection {
        let bytes = |bytes: &u32| usize::try_from(*bytes).expect("32 bits fit an address");
        Selection {
            paths: self.path.clone(),
            clients: self.clients.clone(),
            payloads: self.payload.iter().map(bytes).collect(),
            operations: self.operation.clone(),
            active: self.active,
            rounds: self.rounds,
            turn: self.seconds,
            spin: self.spin,
            cores: if self.apart {
                Cores::Apart
            } else {
                Cores::Shared
            },
        }
    }
}

fn text(measurement: &Measurement) -> String {
    let host = &measurement.host;
    let mut text = format!(
        "{} rounds of {:.0} ms each, {} active; {} cores{}, {}, Linux {}, load before {:.2}\n\n",
        measurement.rounds,
        measurement.seconds_per_turn * 1e3,
        measurement.active_clients,
        host.cores,
        match measurement.cores {
            Cores::Shared => "",
            Cores::Apart => " divided between server and clients",
        },
        host.processor,
        host.kernel,
        host.load_before
    );
    let header = [
        "PATH",
        "POLL",
        "OPERATION",
        "SERVER",
        "PAYLOAD",
        "CLIENTS",
        "P50 US",
        "P90 US",
        "P99 US",
        "P99.9 US",
        "MAX US",
        "REQ/S",
        "CLIENT CPU",
        "SERVER CPU",
    ];
    let rows = measurement.results.iter().zip(&measurement.settings);
    let rows: Vec<Vec<String>> = rows
        .map(|(row, setting)| cells(row, setting.as_deref()))
        .collect();
    text.push_str(&table(&header, &rows));
    let ratios = measurement.ratios.in_words();
    if !ratios.is_empty() {
        text.push_str("\nmedians of 256 B, one client where no number is named:\n");
        for ratio in ratios {
            text.push_str(&format!("  {ratio}\n"));
        }
    }
    text
}

fn cells(row: &Row, setting: Option<&str>) -> Vec<String> {
    let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
    let share = |cpu: f64| format!("{:.0} %", cpu * 100.0);
    vec![
        row.path.name().to_owned(),
        setting.unwrap_or("-").to_owned(),
        row.operation.name().to_owned(),
        row.server.name().to_owned(),
        size(row.payload_bytes as u64),
        row.clients.to_string(),
        us(row.p50_ns),
        us(row.p90_ns),
        us(row.p99_ns),
        us(row.p999_ns),
        us(row.max_ns),
        format!("{:.0}", row.requests_per_second),
        share(row.client_cpu),
        share(row.server_cpu),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::Answerer;

    #[test]
    fn a_row_has_a_cell_per_column() {
        let row = Row {
            path: Route::BridgeAdaptive,
            operation: Operation::Fetch,
            server: Answerer::Poller,
            spin_us: Some(50.0),
            payload_bytes: 4096,
            clients: 1,
            p50_ns: 7_040,
            p90_ns: 8_000,
            p99_ns: 39_000,
            p999_ns: 100_000,
            max_ns: 1_234_567,
            requests_per_second: 123_456.7,
            client_cpu: 0.513,
            server_cpu: 1.0,
        };
        assert_eq!(
            cells(&row, Some("adaptive:50us")),
            [
                "bridge-adaptive",
                "adaptive:50us",
                "fetch",
                "poller",
                "4.0 KiB",
                "1",
                "7.0",
                "8.0",
                "39.0",
                "100.0",
                "1234.6",
                "123457",
                "51 %",
                "100 %"
            ]
        );
    }

    #[test]
    fn bad_values_are_refused_in_a_sentence() {
        assert!(
            operation("dance")
                .unwrap_err()
                .contains("echo, fetch or report")
        );
        assert!(
            seconds("soon")
                .unwrap_err()
                .contains("no number of seconds")
        );
        assert!(seconds("-1").unwrap_err().contains("out of range"));
        assert!(seconds("NaN").unwrap_err().contains("out of range"));
        assert!(spin("50").unwrap_err().contains("such as 50us"));
        assert!(spin("1s").unwrap_err().contains("out of range"));
        assert_eq!(pause("0"), Ok(Duration::ZERO));
    }
}
