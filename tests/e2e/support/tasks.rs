//! What the program says about tasks, read through its own command line.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::sandbox::Sandbox;

/// One task as `mitosis task ID --json` shows it.
#[derive(Debug, Clone)]
pub(crate) struct Task(pub(crate) Value);

impl Task {
    pub(crate) fn uuid(&self) -> String {
        self.text("/uuid")
    }

    pub(crate) fn state(&self) -> String {
        self.text("/state")
    }

    pub(crate) fn command(&self) -> String {
        self.text("/command")
    }

    pub(crate) fn reason(&self) -> String {
        self.text("/reason")
    }

    pub(crate) fn attempts(&self) -> u64 {
        self.0["attempts"].as_u64().unwrap_or_default()
    }

    pub(crate) fn is_terminal(&self) -> bool {
        matches!(&*self.state(), "completed" | "failed" | "cancelled")
    }

    /// The text at a JSON pointer; empty when there is none.
    pub(crate) fn text(&self, pointer: &str) -> String {
        let found = self.0.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    }

    /// The number at a JSON pointer.
    pub(crate) fn number(&self, pointer: &str) -> Option<i64> {
        self.0.pointer(pointer).and_then(Value::as_i64)
    }

    /// How every execution but the last ended.
    fn earlier_ends(&self) -> Vec<String> {
        let history = self.0["history"].as_array().cloned().unwrap_or_default();
        let ends = history.iter().map(|attempt| attempt["end"].as_str());
        let mut ends: Vec<String> = ends.map(|end| end.unwrap_or_default().to_owned()).collect();
        ends.pop();
        ends
    }

    /// Holds that every execution but the last was lost or handed back, and is on record. For what
    /// [`show`] returned.
    #[track_caller]
    pub(crate) fn assert_repeated_with_cause(&self) {
        let ends = self.earlier_ends();
        let caused = |end: &String| end.starts_with("lost") || end.starts_with("released");
        assert!(
            ends.iter().all(caused) && ends.len() as u64 + 1 == self.attempts(),
            "executed again without a recorded cause: {:#}",
            self.0
        );
    }
}

/// All tasks of a state directory, oldest first; asks the service if one runs, else reads the store.
#[track_caller]
pub(crate) fn list(sandbox: &Sandbox, state_dir: &Path) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut args = vec!["tasks", "--json", "--limit", "1000", "--state-dir"];
        let dir = state_dir.to_str().expect("a path in UTF-8");
        args.push(dir);
        if let Some(cursor) = &cursor {
            args.extend(["--cursor", cursor]);
        }
        let page = sandbox.run(args).code(0).json();
        let found = page["tasks"].as_array().expect("a list of tasks").clone();
        tasks.extend(found.into_iter().map(Task));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return tasks;
        }
    }
}

/// Everything about one task.
#[track_caller]
pub(crate) fn show(sandbox: &Sandbox, state_dir: &Path, uuid: &str) -> Task {
    let dir = state_dir.to_str().expect("a path in UTF-8");
    let shown = sandbox.run(["task", uuid, "--json", "--state-dir", dir]);
    Task(shown.code(0).json())
}

/// Tasks by state.
pub(crate) fn counts(tasks: &[Task]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for task in tasks {
        *counts.entry(task.state()).or_default() += 1;
    }
    counts
}

/// Holds that all `expected` tasks completed, that none has a twin, and that every execution but a task's last has a
/// recorded cause. Returns how many tasks were executed more than once.
#[track_caller]
pub(crate) fn assert_all_completed(sandbox: &Sandbox, state_dir: &Path, expected: usize) -> usize {
    let tasks = list(sandbox, state_dir);
    let wanted = BTreeMap::from([("completed".to_owned(), expected)]);
    assert_eq!(counts(&tasks), wanted, "of {} tasks", tasks.len());
    let mut uuids: Vec<String> = tasks.iter().map(Task::uuid).collect();
    uuids.sort();
    uuids.dedup();
    assert_eq!(uuids.len(), expected, "two tasks have the same name");
    let again = tasks.iter().filter(|task| task.attempts() > 1);
    let again: Vec<Task> = again
        .map(|task| show(sandbox, state_dir, &task.uuid()))
        .collect();
    for task in &again {
        task.assert_repeated_with_cause();
    }
    again.len()
}
