//! The measuring instruments: that they measure what they say, leave nothing, and refuse nonsense. No figure is judged.

#[expect(
    dead_code,
    reason = "shared with the end-to-end tests, which need all of it"
)]
mod support;

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use support::program::Running;
use support::sandbox::Sandbox;

const PATHS: [&str; 8] = [
    "iceoryx2-raw",
    "iceoryx2-raw-asleep",
    "bridge-busy",
    "bridge-adaptive",
    "bridge-event",
    "unix-socket",
    "http-keepalive",
    "http-coordinator",
];

fn check_result(result: &Value) {
    let text = |key: &str| result[key].as_str().unwrap_or_default();
    assert!(PATHS.contains(&text("path")), "{result:#}");
    assert!(["echo", "fetch", "report"].contains(&text("operation")));
    assert!(["poller", "tokio"].contains(&text("server")));
    assert!(result.get("spin_us").is_some(), "{result:#}");
    for key in [
        "payload_bytes",
        "clients",
        "p50_ns",
        "p90_ns",
        "p99_ns",
        "p999_ns",
        "max_ns",
    ] {
        assert!(result[key].as_u64() > Some(0), "{key}: {result:#}");
    }
    for key in ["requests_per_second", "client_cpu", "server_cpu"] {
        assert!(result[key].as_f64() > Some(0.0), "{key}: {result:#}");
    }
    let quantiles = ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"];
    assert!(quantiles.is_sorted_by_key(|key| result[*key].as_u64()));
}

#[test]
fn every_path_is_measured_with_connected_clients_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let call = "ipc --json --rounds 2 --seconds 0.005 --clients 1,3 --active 2 --payload 256,4096";
    let measured = sandbox.run(call.split(' ')).code(0).json();
    assert_eq!(
        (&measured["rounds"], &measured["active_clients"]),
        (&2.into(), &2.into())
    );
    let results = measured["results"].as_array().expect("results");
    results.iter().for_each(check_result);
    for path in PATHS {
        let own = results.iter().filter(|result| result["path"] == path);
        let clients: Vec<_> = own.map(|result| result["clients"].as_u64()).collect();
        assert!(
            clients.contains(&Some(1)) && clients.contains(&Some(3)),
            "{path}: {clients:?}"
        );
    }
    let operations = |path: &str| {
        let own = results.iter().filter(|result| result["path"] == path);
        let mut names: Vec<_> = own
            .filter_map(|result| result["operation"].as_str())
            .collect();
        names.dedup();
        names
    };
    assert_eq!(operations("bridge-busy"), ["echo", "fetch", "report"]);
    assert_eq!(operations("http-coordinator"), ["fetch"]);
    sandbox.assert_nothing_left();
}

#[test]
fn a_sweep_measures_every_setting_and_draws_it() {
    let sandbox = Sandbox::new();
    let call = "ipc --json --sweep --rounds 1 --seconds 0.005 --svg sweep.svg \
                --poll event,adaptive:20us,busy,interval:50us";
    let measured = sandbox.run(call.split_whitespace()).code(0).json();
    let settings = ["event", "adaptive:20us", "busy", "interval:50us"];
    assert_eq!(measured["settings"], Value::from(settings.to_vec()));
    assert_eq!(measured["results"].as_array().map(Vec::len), Some(4));
    assert_eq!(measured["cores"], "shared");
    let svg = sandbox.text("sweep.svg");
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    assert!(
        settings.iter().all(|setting| svg.contains(setting)),
        "{svg}"
    );
}

#[test]
fn idle_workers_are_measured_beside_bare_ports() {
    let sandbox = Sandbox::new();
    let call = "workers --json --workers 3 --rounds 2 --idle 1";
    let measured = sandbox.run(call.split(' ')).code(0).json();
    for key in [
        "ready_seconds",
        "baseline_seconds",
        "ready_over_baseline",
        "idle_cpu",
        "worker_pss_bytes",
        "manager_pss_bytes",
        "shared_memory_bytes",
    ] {
        assert!(measured[key].as_f64() > Some(0.0), "{key}: {measured:#}");
    }
    assert_eq!(measured["workers"], 3);
    sandbox.assert_nothing_left();
}

#[test]
fn an_interrupted_measurement_ends_its_clients_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let call = "ipc --rounds 1000 --seconds 0.01 --clients 2 --payload 256";
    let mut running = sandbox.start(call.split(' '));
    let pid = running.pid();
    running.until("the first round to be over", || {
        let stderr = std::fs::read_to_string(sandbox.path("0000.stderr")).unwrap_or_default();
        if stderr.contains("round 1/1000") {
            Ok(())
        } else {
            Err(format!("process {pid}: {stderr}"))
        }
    });
    running.signal(Signal::INT);
    running.finish().code(130).says(&["interrupted"]);
    sandbox.assert_nothing_left();
}

#[test]
fn nonsense_is_refused_in_a_sentence() {
    let sandbox = Sandbox::new();
    let refused = [
        (
            "ipc --path pigeon",
            "unknown path `pigeon`: expected one of",
        ),
        ("ipc --clients 257", "257 is not in 1..=256"),
        ("ipc --clients 0", "0 is not in 1..=256"),
        ("ipc --payload 0", "0 is not in 1..="),
        ("ipc --seconds -1", "unexpected argument"),
        (
            "ipc --seconds=-1",
            "out of range: expected 0.001 to 60 seconds",
        ),
        ("ipc --seconds long", "`long` is no number of seconds"),
        ("ipc --spin 1h", "expected a number with ns, us, ms or s"),
        ("ipc --operation dance", "expected echo, fetch or report"),
        ("ipc --poll busy", "--sweep"),
        (
            "ipc --sweep --poll sometimes",
            "unknown poll strategy `sometimes`",
        ),
        (
            "ipc --path unix-socket --operation report",
            "only the bridge has reports",
        ),
        ("workers --workers 300", "300 is not in 1..=256"),
        (
            "workers --poll interval:5h",
            "expected a number with ns, us, ms or s",
        ),
    ];
    for (call, words) in refused {
        sandbox.run(call.split(' ')).code(2).says(&[words]);
    }
}

#[test]
fn control_is_measured_in_every_kind_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let call = "control --json --rounds 2 --workers 2";
    let measured = sandbox.run(call.split(' ')).code(0).json();
    let results = measured["results"].as_array().expect("results");
    let kinds: Vec<_> = results
        .iter()
        .filter_map(|of| of["kind"].as_str())
        .collect();
    assert_eq!(
        kinds,
        ["cancel", "cancel_now", "cancel_command", "redispatch"]
    );
    for result in results {
        let quantiles = ["p50_ns", "p99_ns", "max_ns"];
        assert!(result["p50_ns"].as_u64() > Some(0), "{result:#}");
        assert!(quantiles.is_sorted_by_key(|key| result[*key].as_u64()));
    }
    sandbox.assert_nothing_left();
}

#[test]
fn scrapes_are_measured_in_windows_and_wake_no_worker() {
    let sandbox = Sandbox::new();
    let call = "scrape --json --workers 3 --rounds 1 --window 1 --scrapes 50";
    let measured = sandbox.run(call.split(' ')).code(0).json();
    for key in ["scrape_p50_ns", "cpu_seconds_per_scrape", "series", "bytes"] {
        assert!(measured[key].as_f64() > Some(0.0), "{key}: {measured:#}");
    }
    // One wake-up by every scrape would make it 3; timers of their own wake workers once in some seconds.
    let woken = measured["wakeups_per_scrape"].as_f64();
    assert!(woken < Some(1.0), "{measured:#}");
    sandbox.assert_nothing_left();
}

#[test]
fn the_overhead_of_metrics_is_measured_in_pairs() {
    let sandbox = Sandbox::new();
    let call = "overhead --json --pairs 4 --tasks 200 --workers 2";
    let measured = sandbox.run(call.split(' ')).code(0).json();
    assert_eq!(measured["pairs"].as_array().map(Vec::len), Some(4));
    for half in ["installed", "absent"] {
        let cost = &measured[half];
        assert!(cost["fetch_p50_ns"].as_u64() > Some(0), "{measured:#}");
        let cpu = cost["cpu_seconds_per_10000_tasks"].as_f64();
        assert!(cpu > Some(0.0), "{measured:#}");
    }
    assert!(measured["cpu"]["upper_95"].is_f64(), "{measured:#}");
    sandbox.assert_nothing_left();
}

#[test]
fn the_product_hands_its_words_to_the_instruments_beside_it() {
    let sandbox = Sandbox::new();
    let product = Path::new(support::PROGRAM).with_file_name("mitosis");
    let call = |words: &str| {
        let command = sandbox.command_of(&product, words.split(' '));
        Running::start(&sandbox, command).finish()
    };
    let help = call("bench --help").code(0).out();
    assert!(help.contains("Usage: mitosis bench"), "{help}");
    call("bench ipc --clients 257")
        .code(2)
        .says(&["257 is not in 1..=256"]);
    call("-q bench -v ipc --seconds=-1")
        .code(2)
        .says(&["out of range"]);
}

#[test]
fn without_the_instruments_beside_it_the_product_says_how_to_build_them() {
    let sandbox = Sandbox::new();
    let product = Path::new(support::PROGRAM).with_file_name("mitosis");
    let alone = sandbox.path("mitosis");
    std::fs::copy(product, &alone).expect("a copy of the program");
    let mut command = sandbox.command_of(&alone, ["bench", "tasks"]);
    command.env("PATH", sandbox.root());
    Running::start(&sandbox, command)
        .finish()
        .code(3)
        .says(&["cargo build --release -p mitosis-bench"]);
}

/// Runs the comparison with other tools and returns its report.
#[track_caller]
fn peers(sandbox: &Sandbox, words: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers.py");
    let product = Path::new(support::PROGRAM).with_file_name("mitosis");
    let mut command = sandbox.command_of(Path::new("python3"), [script]);
    command.arg("--mitosis").arg(product).args(words);
    Running::start(sandbox, command).finish().code(0).json()
}

#[test]
fn the_product_is_compared_with_xargs_at_every_form_of_a_task() {
    let sandbox = Sandbox::new();
    let words = [
        "--json",
        "--rounds",
        "2",
        "--tasks",
        "3",
        "--only",
        "true",
        "--only",
        "/bin/echo hello",
    ];
    let measured = peers(&sandbox, &words);
    let workloads = measured["workloads"].as_array().expect("workloads");
    assert_eq!(workloads.len(), 2, "{measured:#}");
    for workload in workloads {
        let results = workload["results"].as_array().expect("results");
        let of = |tool: &str| {
            let found = results.iter().find(|result| result["tool"] == tool);
            found.unwrap_or_else(|| panic!("no {tool}: {workload:#}"))
        };
        let baseline = of(workload["baseline"].as_str().expect("a baseline"));
        assert_eq!(
            (&baseline["ratio"], &baseline["cpu_ratio"]),
            (&1.0.into(), &1.0.into())
        );
        for key in [
            "tasks_per_second",
            "ratio",
            "cpu_ms_per_task",
            "switches_per_task",
        ] {
            assert!(
                of("run, default")[key].as_f64() > Some(0.0),
                "{key}: {workload:#}"
            );
        }
        for result in results {
            assert_eq!(
                result["output_bytes"], result["output_bytes_expected"],
                "{result:#}"
            );
        }
    }
    let echo = workloads[1]["results"][0]["output_bytes"].as_u64();
    assert_eq!(echo, Some(3 * "hello\n".len() as u64));
}
