//! Refuses what this machine can never run, before anything is run: a task that only waits would keep a run for ever.

use super::error::RunError;
use super::input::InputTask;
use super::options::RunOptions;
use crate::coordinator::Coordinator;

/// Lines that are named; the rest is counted.
const NAMED: usize = 10;

/// Holds every task of the input against the machine.
pub(super) fn check(options: &RunOptions, tasks: &[InputTask]) -> Result<(), RunError> {
    let capacity = options.capacity();
    let beyond = tasks.iter().filter_map(|task| {
        let wanted = options.defaults.resources_of(task.spec.resources.clone());
        let lack = capacity.lacks(&wanted)?;
        let (line, wanted, there) = (task.line, lack.wanted, lack.there);
        Some(format!(
            "line {line} needs {wanted}, and there is no more than {there}"
        ))
    });
    refuse(beyond.collect())
}

/// Holds what an earlier run left, perhaps on a larger machine, against this one.
pub(super) async fn check_open(
    coordinator: &Coordinator,
    options: &RunOptions,
) -> Result<(), RunError> {
    let beyond = coordinator.beyond(options.capacity()).await?;
    let words = beyond.map(|(task, lack)| {
        let (wanted, there) = (lack.wanted, lack.there);
        format!("task {task} of an earlier run needs {wanted}, and there is no more than {there}")
    });
    refuse(words.into_iter().collect())
}

fn refuse(mut words: Vec<String>) -> Result<(), RunError> {
    if words.is_empty() {
        return Ok(());
    }
    let more = words.len().saturating_sub(NAMED);
    words.truncate(NAMED);
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    Err(RunError::Unfit(words.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_are_named_and_the_rest_is_counted() {
        assert!(refuse(Vec::new()).is_ok());
        let words = (1..=12).map(|line| format!("line {line}")).collect();
        let text = refuse(words).unwrap_err().to_string();
        assert!(text.contains("line 10\nand 2 more"), "{text}");
    }
}
