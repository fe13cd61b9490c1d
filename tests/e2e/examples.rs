//! The examples, each run as its reader runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::program::{Finished, Running};
use crate::support::sandbox::Sandbox;

/// Runs the script of an example, with the program under test as `mitosis`, in a copy that it may write to.
#[track_caller]
fn run(sandbox: &Sandbox, name: &str, args: &[&str]) -> Finished {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copied = Command::new("cp")
        .arg("-r")
        .args([root.join("examples").join(name), sandbox.path(name)])
        .status();
    assert!(copied.expect("cp").success());
    let program = Path::new(env!("CARGO_BIN_EXE_mitosis")).parent();
    let path = format!(
        "{}:{}",
        program.expect("a directory").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let script = sandbox.path(name).join("run");
    let mut command = sandbox.command_of(&script, args);
    command.env("PATH", path).stdin(Stdio::null());
    Running::start(sandbox, command).finish()
}

#[test]
fn a_c_project_is_compiled_as_a_graph_and_a_broken_file_stops_what_needs_it() {
    let sandbox = Sandbox::new();
    let built = run(&sandbox, "compile-c", &[]).code(0);
    let words = String::from_utf8_lossy(&built.stdout).into_owned();
    assert!(words.contains("6 words, 13 letters, longest 3"), "{words}");
    assert!(sandbox.path("compile-c/build/words").is_file());

    let source = sandbox.path("compile-c/src/count_words.c");
    fs::write(&source, "size_t count_words(").expect("a broken source");
    let mut command = sandbox.command(["run", "build.jsonl"]);
    command.current_dir(sandbox.path("compile-c"));
    let broken = Running::start(&sandbox, command).finish().code(1);
    let words = String::from_utf8_lossy(&broken.stdout).into_owned();
    assert!(
        words.contains("nothing was linked"),
        "{words} {}",
        broken.stderr
    );
}

#[test]
fn every_picture_gets_a_thumbnail() {
    let sandbox = Sandbox::new();
    run(&sandbox, "thumbnails", &[]).code(0);
    let mut thumbs: Vec<_> = fs::read_dir(sandbox.path("thumbs"))
        .expect("the directory of thumbnails")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    thumbs.sort();
    assert_eq!(thumbs, ["blue.jpg", "gold.jpg", "green.jpg", "red.jpg"]);
}

#[test]
fn a_grid_is_searched_and_its_best_point_is_in_the_table() {
    let sandbox = Sandbox::new();
    run(&sandbox, "grid-search", &["grid.csv"]).code(0);
    let table = sandbox.text("grid.csv");
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let columns = reader.headers().expect("a head").clone();
    let column = |name: &str| {
        let found = columns.iter().position(|column| column == name);
        found.unwrap_or_else(|| panic!("no column {name} in {columns:?}"))
    };
    let [rate, loss] = ["argument.1", "result.loss"].map(column);
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
    assert_eq!(rows.len(), 9, "{table}");
    let value = |row: &csv::StringRecord| row[loss].parse::<f64>().expect("a number");
    let best = rows.iter().min_by(|a, b| value(a).total_cmp(&value(b)));
    let best = best.expect("nine rows");
    assert!(value(best) < 0.01 && &best[rate] != "0.01", "{table}");
}

#[test]
fn a_flaky_test_is_run_until_it_has_failed_often_enough() {
    let sandbox = Sandbox::new();
    let hunt = run(&sandbox, "flaky-test", &["report.xml"]).code(1);
    assert!(hunt.stderr.contains("second came first"), "{}", hunt.stderr);
    let report = sandbox.text("report.xml");
    assert!(report.contains("<failure"), "{report}");
}
