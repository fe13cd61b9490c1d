//! Refuses what this machine can never run, before anything is run: a task that only waits would keep a run for ever.

use super::error::RunError;
use super::input::InputTask;
use super::options::{RunOptions, SpecDefaults};
use crate::coordinator::Coordinator;
use crate::protocol::Capacity;

/// Lines that are named; the rest is counted.
const NAMED: usize = 10;

/// Holds tasks of an input against the machine.
#[derive(Debug)]
pub(super) struct Fit<'a> {
    defaults: &'a SpecDefaults,
    capacity: Capacity,
    /// Those that do not fit, in words, and how many more there are.
    beyond: Vec<String>,
    more: usize,
}

impl<'a> Fit<'a> {
    /// Nothing was looked at yet.
    pub(super) fn new(options: &'a RunOptions) -> Self {
        Self {
            defaults: &options.defaults,
            capacity: options.capacity(),
            beyond: Vec::new(),
            more: 0,
        }
    }

    /// Looks at some tasks.
    pub(super) fn look(&mut self, tasks: &[InputTask]) {
        for task in tasks {
            let wanted = self.defaults.resources_of(task.spec.resources.clone());
            let Some(lack) = self.capacity.lacks(&wanted) else {
                continue;
            };
            if self.beyond.len() == NAMED {
                self.more += 1;
                continue;
            }
            let (line, wanted, there) = (task.line, lack.wanted, lack.there);
            self.beyond.push(format!(
                "line {line} needs {wanted}, and there is no more than {there}"
            ));
        }
    }

    /// Refuses what does not fit.
    pub(super) fn verdict(self) -> Result<(), RunError> {
        refuse(self.beyond, self.more)
    }
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
    refuse(words.into_iter().collect(), 0)
}

fn refuse(mut words: Vec<String>, more: usize) -> Result<(), RunError> {
    if words.is_empty() {
        return Ok(());
    }
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
        assert!(refuse(Vec::new(), 0).is_ok());
        let words = (1..=10).map(|line| format!("line {line}")).collect();
        let text = refuse(words, 2).unwrap_err().to_string();
        assert!(text.contains("line 10\nand 2 more"), "{text}");
    }
}
