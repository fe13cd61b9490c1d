//! From the calls of a turn to the figures of a case: quantiles, rates, CPU, medians over the rounds, and ratios.

use std::time::Duration;

use serde::Serialize;

use super::case::{Answerer, Case, Operation, Route};
use super::histogram::Histogram;
use super::plan::{Cores, Plan};
use super::wire::Answer;
use crate::host::Host;
use mitosis::run::summary::median;

/// What one case did in one round.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn {
    latencies: Histogram,
    /// Sum over chunks of the longest client.
    wall: Duration,
    /// The same with warm-ups and what clients did off the clock, at which the server worked as well.
    whole: Duration,
    requests_per_second_and_wall: f64,
    client_cpu: Duration,
    server_cpu: Duration,
}

impl Turn {
    /// Adds a chunk: what each active client did, and the CPU time of the server's process meanwhile.
    pub(super) fn add(&mut self, answers: &[Answer], server_cpu: Duration) {
        let (mut longest, mut whole) = (Duration::ZERO, Duration::ZERO);
        let mut rate = 0.0;
        for answer in answers {
            let before = self.latencies.total();
            self.latencies.add(&answer.latencies);
            let calls = self.latencies.total() - before;
            if !answer.wall.is_zero() {
                rate += calls as f64 / answer.wall.as_secs_f64();
            }
            longest = longest.max(answer.wall);
            whole = whole.max(answer.whole);
            self.client_cpu += answer.cpu;
        }
        self.wall += longest;
        self.whole += whole;
        self.requests_per_second_and_wall += rate * longest.as_secs_f64();
        self.server_cpu += server_cpu;
    }

    /// Time in which calls were made.
    pub(super) fn wall(&self) -> Duration {
        self.wall
    }

    fn per_wall(&self, amount: f64) -> f64 {
        over(amount, self.wall)
    }
}

fn over(amount: f64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { amount / seconds } else { 0.0 }
}

/// The figures of one case: medians over the rounds. Field names are the JSON keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The way.
    pub path: Route,
    /// What was asked for.
    pub operation: Operation,
    /// Who answered.
    pub server: Answerer,
    /// Spin budget of both pollers, where there is one.
    pub spin_us: Option<f64>,
    /// Bytes of what travelled.
    pub payload_bytes: usize,
    /// Connected clients.
    pub clients: u16,
    /// Half of the calls took no longer.
    pub p50_ns: u64,
    /// Nine in ten.
    pub p90_ns: u64,
    /// 99 in a hundred.
    pub p99_ns: u64,
    /// 999 in a thousand.
    pub p999_ns: u64,
    /// The longest call of a round.
    pub max_ns: u64,
    /// Of all active clients together.
    pub requests_per_second: f64,
    /// CPU time of the active clients' processes as a share of one core.
    pub client_cpu: f64,
    /// CPU time of the server's process as a share of one core.
    pub server_cpu: f64,
}

impl Row {
    fn of(case: &Case, turns: &[Turn]) -> Self {
        let nanoseconds = |get: &dyn Fn(&Histogram) -> u64| {
            let mut figures: Vec<u64> = turns.iter().map(|turn| get(&turn.latencies)).collect();
            figures.sort_unstable();
            figures.get(figures.len() / 2).copied().unwrap_or(0)
        };
        let figure =
            |get: &dyn Fn(&Turn) -> f64| median(&turns.iter().map(get).collect::<Vec<_>>());
        Self {
            path: case.path,
            operation: case.operation,
            server: case.server(),
            spin_us: case.spin_us(),
            payload_bytes: case.payload_bytes,
            clients: case.clients,
            p50_ns: nanoseconds(&|latencies| latencies.quantile(500)),
            p90_ns: nanoseconds(&|latencies| latencies.quantile(900)),
            p99_ns: nanoseconds(&|latencies| latencies.quantile(990)),
            p999_ns: nanoseconds(&|latencies| latencies.quantile(999)),
            max_ns: nanoseconds(&Histogram::max),
            requests_per_second: figure(&|turn| turn.per_wall(turn.requests_per_second_and_wall)),
            client_cpu: figure(&|turn| turn.per_wall(turn.client_cpu.as_secs_f64())),
            server_cpu: figure(&|turn| over(turn.server_cpu.as_secs_f64(), turn.whole)),
        }
    }
}

/// A measurement. Field names are the JSON keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// One per case, in the order of the plan.
    pub results: Vec<Row>,
    /// What the goals of the product are about; what was not measured is absent.
    pub ratios: Ratios,
    /// The strategy of each result as `--poll` reads it; nothing where there is no poller to set.
    pub settings: Vec<Option<String>>,
    /// Rounds; figures are medians over them.
    pub rounds: u32,
    /// Time of calls per case and round.
    pub seconds_per_turn: f64,
    /// Clients that made calls at the same time, where as many were connected; the others were silent.
    pub active_clients: u16,
    /// Mean of the pauses between calls; nothing when each followed the last at once.
    pub pause_us: Option<f64>,
    /// Where server and clients ran.
    pub cores: Cores,
    /// What the spool behind reports survives.
    pub durability: &'static str,
    /// The machine.
    pub host: Host,
}

impl Measurement {
    pub(super) fn of(plan: &Plan, host: Host, turn: Duration, turns: &[Vec<Turn>]) -> Self {
        let rows = plan.cases.iter().zip(turns);
        let results: Vec<Row> = rows.map(|(case, turns)| Row::of(case, turns)).collect();
        let setting = |case: &Case| case.poll.map(|poll| poll.to_string());
        Self {
            ratios: Ratios::of(&results),
            results,
            settings: plan.cases.iter().map(setting).collect(),
            rounds: plan.rounds,
            seconds_per_turn: turn.as_secs_f64(),
            active_clients: plan.active,
            pause_us: plan.pause.map(|pause| pause.as_secs_f64() * 1e6),
            cores: plan.cores,
            durability: "process",
            host,
        }
    }
}

/// Medians against medians of the same run, for small payloads.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Ratios {
    /// Busy echo answered on the poller, minus the baseline, in nanoseconds.
    pub busy_echo_minus_floor_ns: Option<f64>,
    /// `bridge-adaptive` over the baseline.
    pub adaptive_echo_over_floor: Option<f64>,
    /// `bridge-event` over the bare transport asleep.
    pub event_echo_over_raw_asleep: Option<f64>,
    /// `bridge-event` over the blocking Unix socket.
    pub event_echo_over_unix_socket: Option<f64>,
    /// HTTP keep-alive echo over the busy bridge's fetch.
    pub http_echo_over_busy_fetch: Option<f64>,
    /// HTTP keep-alive echo over the adaptive bridge's fetch.
    pub http_echo_over_adaptive_fetch: Option<f64>,
    /// HTTP keep-alive echo over the sleeping bridge's fetch.
    pub http_echo_over_event_fetch: Option<f64>,
    /// Busy fetch with 256 clients over one.
    pub busy_fetch_256_over_1: Option<f64>,
    /// The baseline with 256 clients over one.
    pub floor_256_over_1: Option<f64>,
}

impl Ratios {
    fn of(rows: &[Row]) -> Self {
        use Operation::{Echo, Fetch};
        let p50 = |path, operation, clients| {
            let fits = |row: &&Row| {
                (row.path, row.operation, row.clients) == (path, operation, clients)
                    && row.payload_bytes == 256
            };
            rows.iter().find(fits).map(|row| row.p50_ns as f64)
        };
        let ratio = |upper: Option<f64>, lower: Option<f64>| {
            let lower = lower.filter(|lower| *lower > 0.0)?;
            Some(upper? / lower)
        };
        let floor = p50(Route::Raw, Echo, 1);
        let http = p50(Route::HttpKeepalive, Echo, 1);
        let event = p50(Route::BridgeEvent, Echo, 1);
        let busy_echo = p50(Route::BridgeBusy, Echo, 1);
        let busy_fetch = p50(Route::BridgeBusy, Fetch, 1);
        Self {
            busy_echo_minus_floor_ns: busy_echo.zip(floor).map(|(busy, floor)| busy - floor),
            adaptive_echo_over_floor: ratio(p50(Route::BridgeAdaptive, Echo, 1), floor),
            event_echo_over_raw_asleep: ratio(event, p50(Route::RawAsleep, Echo, 1)),
            event_echo_over_unix_socket: ratio(event, p50(Route::UnixSocket, Echo, 1)),
            http_echo_over_busy_fetch: ratio(http, busy_fetch),
            http_echo_over_adaptive_fetch: ratio(http, p50(Route::BridgeAdaptive, Fetch, 1)),
            http_echo_over_event_fetch: ratio(http, p50(Route::BridgeEvent, Fetch, 1)),
            busy_fetch_256_over_1: ratio(p50(Route::BridgeBusy, Fetch, 256), busy_fetch),
            floor_256_over_1: ratio(p50(Route::Raw, Echo, 256), floor),
        }
    }

    /// Each with its words, for people; what was not measured is left out.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        let ratios = [
            (
                "bridge-adaptive echo / floor",
                self.adaptive_echo_over_floor,
            ),
            (
                "bridge-event echo / raw asleep",
                self.event_echo_over_raw_asleep,
            ),
            (
                "bridge-event echo / unix-socket",
                self.event_echo_over_unix_socket,
            ),
            (
                "http-keepalive / bridge-busy fetch",
                self.http_echo_over_busy_fetch,
            ),
            (
                "http-keepalive / bridge-adaptive fetch",
                self.http_echo_over_adaptive_fetch,
            ),
            (
                "http-keepalive / bridge-event fetch",
                self.http_echo_over_event_fetch,
            ),
            (
                "bridge-busy fetch, 256 clients / 1",
                self.busy_fetch_256_over_1,
            ),
            ("floor, 256 clients / 1", self.floor_256_over_1),
        ];
        let added = self
            .busy_echo_minus_floor_ns
            .map(|ns| format!("bridge-busy echo - floor: {:+.2} us", ns / 1e3));
        let ratios = ratios
            .into_iter()
            .filter_map(|(words, ratio)| Some(format!("{words}: {:.2}", ratio?)));
        added.into_iter().chain(ratios).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ipc::plan::Selection;

    fn turn(latency_ns: u64) -> Turn {
        let mut latencies = Histogram::default();
        (0..1000).for_each(|_| latencies.record(latency_ns));
        let answer = Answer {
            latencies: latencies.counts(),
            wall: Duration::from_millis(10),
            whole: Duration::from_millis(10),
            cpu: Duration::from_millis(5),
        };
        let mut turn = Turn::default();
        turn.add(std::slice::from_ref(&answer), Duration::from_millis(10));
        turn.add(&[answer], Duration::from_millis(10));
        turn
    }

    /// A measurement of the default plan with made-up figures.
    pub(crate) fn made_up(latency_ns: impl Fn(&Case) -> u64) -> Measurement {
        let plan = Plan::compared(&Selection::default());
        let turns: Vec<Vec<Turn>> = plan
            .cases
            .iter()
            .map(|case| vec![turn(latency_ns(case)); 3])
            .collect();
        Measurement::of(&plan, Host::look(), Duration::from_millis(20), &turns)
    }

    #[test]
    fn figures_of_a_case_are_medians_over_its_rounds() {
        let case = Plan::compared(&Selection::default()).cases[0];
        let row = Row::of(&case, &[turn(300), turn(100), turn(200)]);
        assert_eq!((row.p50_ns, row.p999_ns, row.max_ns), (200, 200, 200));
        assert!((row.requests_per_second - 100_000.0).abs() < 1.0, "{row:?}");
        assert!((row.client_cpu - 0.5).abs() < 1e-9 && (row.server_cpu - 1.0).abs() < 1e-9);
    }

    #[test]
    fn two_clients_at_the_same_time_add_their_rates_and_not_their_time() {
        let mut latencies = Histogram::default();
        (0..100).for_each(|_| latencies.record(10));
        let answer = Answer {
            latencies: latencies.counts(),
            wall: Duration::from_millis(100),
            whole: Duration::from_millis(100),
            cpu: Duration::from_millis(50),
        };
        let mut turn = Turn::default();
        turn.add(&[answer.clone(), answer], Duration::ZERO);
        assert_eq!(turn.wall(), Duration::from_millis(100));
        let case = Plan::compared(&Selection::default()).cases[0];
        let row = Row::of(&case, &[turn]);
        assert!((row.requests_per_second - 2000.0).abs() < 1e-6);
        assert!((row.client_cpu - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_json_has_the_keys_of_the_contract_and_no_others_per_result() {
        let measurement = made_up(|_| 1000);
        let value = serde_json::to_value(&measurement).unwrap();
        let rows = value["results"].as_array().unwrap();
        assert_eq!(rows.len(), measurement.settings.len());
        let mut keys: Vec<&str> = rows[0]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        let mut expected = [
            "path",
            "operation",
            "server",
            "spin_us",
            "payload_bytes",
            "clients",
            "p50_ns",
            "p90_ns",
            "p99_ns",
            "p999_ns",
            "max_ns",
            "requests_per_second",
            "client_cpu",
            "server_cpu",
        ];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        let paths: Vec<&str> = rows.iter().filter_map(|row| row["path"].as_str()).collect();
        assert!(
            Route::COMPARED
                .iter()
                .all(|path| paths.contains(&path.name()))
        );
        for key in [
            "rounds",
            "active_clients",
            "host",
            "ratios",
            "seconds_per_turn",
        ] {
            assert!(value.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn ratios_compare_small_payloads_and_leave_out_what_is_missing() {
        let measurement = made_up(|case| match (case.path, case.clients) {
            (Route::Raw, 1) => 200,
            (Route::Raw, _) => 800,
            (Route::BridgeBusy, 1) => 400,
            (Route::HttpKeepalive, _) => 4000,
            _ => 1000,
        });
        let ratios = measurement.ratios;
        let near = |ratio: Option<f64>, expected: f64| {
            assert!((ratio.unwrap() / expected - 1.0).abs() < 0.01, "{ratio:?}");
        };
        near(ratios.busy_echo_minus_floor_ns, 200.0);
        near(ratios.floor_256_over_1, 4.0);
        near(ratios.http_echo_over_busy_fetch, 10.0);
        near(ratios.busy_fetch_256_over_1, 2.5);
        assert!(ratios.in_words().len() == 9);
        assert_eq!(Ratios::of(&[]), Ratios::default());
        assert!(Ratios::default().in_words().is_empty());
    }
}
