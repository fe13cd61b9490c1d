//! The grammar of a `.jsonl` file: one JSON task spec per line.
//!
//! The lines are those of `task_lines`; here they are counted, and their names are held together. Pure.

use super::input::{InputError, InputTask, Problem, Problems};
use crate::protocol::chain::Chain;

/// Reads all specs, or lists what is wrong with them.
///
/// # Errors
/// When any line is refused; nothing of the input may run then.
pub fn parse(text: &[u8]) -> Result<Vec<InputTask>, InputError> {
    super::feed::Feed::of_text(text, super::feed::Grammar::Jsonl).collect_all()
}

/// Whether the names of all tasks make a graph.
pub(super) fn check_chain(tasks: &[InputTask]) -> Result<(), InputError> {
    match Chain::of(tasks.iter().map(|task| &task.spec)) {
        Ok(_) => Ok(()),
        Err(error) => {
            let line = tasks[error.index].line;
            Err(InputError::Lines(Problems::one(
                line,
                Problem::Chain(error.problem),
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::lines::MAX_LINE_BYTES;
    use std::time::Duration;

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = parse(text.as_bytes())
            .expect_err("must be refused")
            .to_string();
        assert!(error.contains(expected), "`{error}` lacks `{expected}`");
    }

    #[test]
    fn a_spec_per_line_with_any_of_its_fields() {
        let text = "\n{\"args\":[\"echo\",\"hi\"],\"timeout\":\"2s\",\"env\":{\"A\":\"b\"}}\r\n  \n{\"args\":[\"a; b\"],\"shell\":true}";
        let tasks = parse(text.as_bytes()).unwrap();
        assert_eq!(
            tasks.iter().map(|task| task.line).collect::<Vec<_>>(),
            [2, 4]
        );
        assert_eq!(tasks[0].spec.args, ["echo", "hi"]);
        assert_eq!(tasks[0].spec.timeout.unwrap().0, Duration::from_secs(2));
        assert!(tasks[1].spec.shell);
    }

    #[test]
    fn a_malformed_line_is_told_with_line_and_column() {
        refused(
            "{\"args\":[\"true\"]}\n{\"args\": [}\n",
            "line 2, column 11: expected value",
        );
        refused(
            "{\"args\":\"true\"}",
            "line 1, column 14: invalid type: string",
        );
        refused(
            "{\"args\":[\"true\"]} x",
            "line 1, column 19: trailing characters",
        );
        refused("# no comments here", "line 1, column 1: expected value");
    }

    #[test]
    fn a_field_that_no_spec_has_is_named() {
        refused(
            "{\"args\":[\"true\"],\"timout\":1,\"capture\":{\"limit\":1}}",
            "line 1: no task has a field `timout` or `capture.limit`",
        );
    }

    #[test]
    fn names_that_make_no_graph_are_told_with_their_line() {
        refused(
            "{\"id\":\"a\",\"args\":[\"true\"]}\n\n{\"args\":[\"true\"],\"upstream\":[\"b\"]}",
            "line 3: `upstream` names `b`, and no task here has that `id`",
        );
        refused(
            "{\"id\":\"a\",\"args\":[\"true\"],\"upstream\":[\"a\"]}",
            "line 1: `upstream` names `a`, which is this task itself",
        );
        refused(
            "{\"id\":\"a\",\"args\":[\"true\"],\"upstream\":[\"b\"]}\n{\"id\":\"b\",\"args\":[\"true\"],\"upstream\":[\"a\"]}",
            "line 1: these tasks wait for each other in a circle: a -> b -> a",
        );
        refused(
            "{\"args\":[\"true\"],\"upstream\":[{\"task\":\"a\",\"whn\":\"any\"}]}",
            "no task has a field `upstream.0.whn`",
        );
    }

    #[test]
    fn a_spec_that_cannot_run_is_refused() {
        refused("{\"args\":[]}", "line 1: `args` is empty");
        refused("{\"args\":[\"a\\u0000\"]}", "NUL");
        let long = "x".repeat(MAX_LINE_BYTES + 1);
        refused(&format!("{{\"args\":[\"{long}\"]}}"), "131072 bytes");
    }
}
