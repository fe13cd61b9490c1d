//! Results as rows: JSON that people and SQL can read, and both output tails as they were where one is no text.

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::coordinator::store::StoreError;
use crate::protocol::TaskResult;

/// Inserts one; its columns are those of [`columns`].
pub(super) const INSERT: &str = "INSERT INTO results (task, result, tails) VALUES (?1, ?2, ?3)";

/// Inserts one of an attempt. An attempt that is told of twice stays what it was.
pub(super) const INSERT_OF_ATTEMPT: &str = "
    INSERT OR IGNORE INTO attempt_results (task, attempt, result, tails) VALUES (?1, ?2, ?3, ?4)";

/// The kept result of an attempt that was followed by another one.
pub(super) fn of_attempt(
    conn: &Connection,
    task: Uuid,
    attempt: u32,
) -> Result<Option<TaskResult>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT r.result, r.tails FROM tasks t JOIN attempt_results r ON r.task = t.id
         WHERE t.uuid = ?1 AND r.attempt = ?2",
    )?;
    let found = statement
        .query_row((task.into_bytes(), attempt), |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<Vec<u8>>>(1)?))
        })
        .optional()?;
    found
        .map(|(result, tails)| read(&result, tails.as_deref()))
        .transpose()
}

#[derive(Serialize, Deserialize)]
struct Tails {
    #[serde(with = "serde_bytes")]
    stdout: Vec<u8>,
    #[serde(with = "serde_bytes")]
    stderr: Vec<u8>,
}

/// A result as its columns: the JSON, and the tails where that cannot say them.
pub(super) fn columns(result: &TaskResult) -> (String, Option<Vec<u8>>) {
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    let is_plain = is_text(&result.stdout.tail) && is_text(&result.stderr.tail);
    let tails = (!is_plain).then(|| {
        let tails = Tails {
            stdout: result.stdout.tail.clone(),
            stderr: result.stderr.tail.clone(),
        };
        rmp_serde::to_vec(&tails).expect("bytes encode")
    });
    let json = serde_json::to_string(result).expect("a result is plain data");
    (json, tails)
}

/// A result from its columns.
pub(super) fn read(result: &str, tails: Option<&[u8]>) -> Result<TaskResult, StoreError> {
    let corrupt = StoreError::Corrupt { what: "a result" };
    let mut result: TaskResult = serde_json::from_str(result).map_err(|_| corrupt.clone())?;
    if let Some(tails) = tails {
        let tails: Tails = rmp_serde::from_slice(tails).map_err(|_| corrupt)?;
        result.stdout.tail = tails.stdout;
        result.stderr.tail = tails.stderr;
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::Reason;

    #[test]
    fn output_that_is_no_text_comes_back_byte_for_byte() {
        let mut result = TaskResult::not_started(Reason::Exit, "", 1);
        result.stdout.tail = vec![b'a', 0xff, 0x00];
        result.stderr.tail = "ä\n".into();
        let (json, tails) = columns(&result);
        assert_eq!(read(&json, tails.as_deref()).unwrap(), result);
    }

    #[test]
    fn text_needs_no_second_copy() {
        let mut result = TaskResult::not_started(Reason::Exit, "", 1);
        result.stdout.tail = "plain\n".into();
        let (json, tails) = columns(&result);
        assert_eq!(tails, None);
        assert_eq!(read(&json, None).unwrap(), result);
    }
}
