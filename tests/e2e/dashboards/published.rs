//! Dashboards against Grafana's published schema, and the files that start and provision Prometheus and Grafana.
//!
//! The schema comes as a Python package, installed once into the build directory with the digests of
//! `dashboards/requirements.txt`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{dir, passes};
use crate::support::Sandbox;

/// A Python that has the packages.
fn python() -> PathBuf {
    let requirements = dir().join("requirements.txt");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboards-python");
    let python = home.join("bin/python");
    let installed = home.join("requirements.txt");
    // Tests run beside each other, and one of them is the first.
    let lock = std::fs::File::create(home.with_extension("lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let wanted = std::fs::read(&requirements).expect("the list of packages");
    if std::fs::read(&installed).is_ok_and(|has| has == wanted) {
        return python;
    }
    passes(Command::new("python3").args(["-m", "venv"]).arg(&home));
    passes(
        Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--require-hashes",
            ])
            .args(["--only-binary", ":all:", "--requirement"])
            .arg(&requirements),
    );
    std::fs::write(installed, wanted).expect("a note of what is installed");
    python
}

fn validate(files: &[PathBuf]) -> Command {
    let mut command = Command::new(python());
    command.arg(dir().join("validate.py")).args(files);
    command
}

#[test]
fn dashboards_fit_grafanas_published_schema_and_broken_ones_do_not() {
    let files = ["overview", "ipc", "machine", "coordinator"];
    let files = files.map(|name| dir().join(format!("grafana/{name}.json")));
    passes(&mut validate(&files));
    let sandbox = Sandbox::new();
    let text = std::fs::read_to_string(&files[0]).expect("a dashboard");
    let board: Value = serde_json::from_str(&text).expect("JSON");
    for (place, name, value, said) in [
        (
            "/panels/1/fieldConfig/defaults",
            "unti",
            json!("s"),
            "unti is no field",
        ),
        ("", "graphTooltip", json!(7), "DashboardCursorSync"),
        ("/panels/2/gridPos", "w", json!("wide"), "'wide' is no"),
        (
            "/panels/3/options",
            "colorMode",
            json!("loud"),
            "'loud' is no",
        ),
    ] {
        let mut broken = board.clone();
        broken.pointer_mut(place).expect("a place of the dashboard")[name] = value;
        let broken = sandbox.file("broken.json", broken.to_string());
        let output = validate(&[broken]).output().expect("it runs");
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{place}/{name}: {words}");
        assert!(words.contains(said), "{place}/{name}: {words}");
    }
}

fn yaml(name: &str) -> Value {
    let read = "import json, sys; from ruamel.yaml import YAML; \
                json.dump(YAML(typ='safe', pure=True).load(open(sys.argv[1])), sys.stdout)";
    let text = passes(
        Command::new(python())
            .args(["-c", read])
            .arg(dir().join(name)),
    );
    serde_json::from_str(&text).expect("JSON")
}

/// Where a service of the compose file sees a file of this directory.
fn mounted(service: &Value, inside: &str) -> Option<PathBuf> {
    let mounts = service["volumes"].as_array().into_iter().flatten();
    let mut mounts: Vec<(&str, &str)> = mounts
        .filter_map(|mount| mount.as_str()?.split_once(':'))
        .map(|(from, to)| (from, to.trim_end_matches(":ro")))
        .filter(|(from, _)| from.starts_with("./"))
        .collect();
    // The longest mount that holds the path is the one that counts.
    mounts.sort_by_key(|(_, to)| to.len());
    let (from, rest) = mounts
        .iter()
        .rev()
        .find_map(|(from, to)| Some((from, Path::new(inside).strip_prefix(to).ok()?)))?;
    Some(dir().join(from).join(rest))
}

#[test]
fn the_compose_file_mounts_what_prometheus_and_grafana_are_told_to_read() {
    let compose = yaml("compose.yml");
    let [prometheus, grafana] = ["prometheus", "grafana"].map(|name| &compose["services"][name]);
    let command = prometheus["command"].as_array().expect("a command");
    let config = command
        .iter()
        .find_map(|word| word.as_str()?.strip_prefix("--config.file="))
        .expect("a configuration");
    let config = mounted(prometheus, config).expect("it is mounted");
    assert!(config.is_file(), "{}", config.display());
    for kind in ["datasources", "dashboards"] {
        let inside = format!("/etc/grafana/provisioning/{kind}");
        let provisioned = mounted(grafana, &inside).expect("it is mounted");
        let files = std::fs::read_dir(&provisioned).expect("a directory");
        assert_eq!(files.count(), 1, "{}", provisioned.display());
    }
    let source = &yaml("grafana/provisioning/datasources/prometheus.yml")["datasources"][0];
    assert_eq!(source["type"], "prometheus");
    assert_eq!(
        source["url"], "http://prometheus:9090",
        "the service's own name"
    );
    let provider = &yaml("grafana/provisioning/dashboards/mitosis.yml")["providers"][0];
    let boards = provider["options"]["path"].as_str().expect("a path");
    let boards = mounted(grafana, boards).expect("it is mounted");
    assert!(boards.join("ipc.json").is_file(), "{}", boards.display());
    let home = &grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    let home = mounted(grafana, home.as_str().expect("a path")).expect("it is mounted");
    assert!(home.is_file(), "{}", home.display());
}
