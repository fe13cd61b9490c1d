//! Identity of a task inside a run: the content of its spec and its occurrence.
//!
//! A second run on the same state directory finds its tasks by these keys: an unchanged line is the task it was, a
//! changed line is a new one, and the same line written three times is three tasks. Only what the input says goes
//! into the key, so moving a line or running with another `--timeout` changes nothing. The keys of the tasks that it
//! waits for go in as well: what follows from a changed line is new too. Pure.

use std::collections::HashMap;

use uuid::Uuid;

use super::input::InputTask;
use crate::protocol::chain::{Chain, Target};

/// Name space of the content hashes; a constant of this program, drawn once.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f0e_3c5a_8d1b_4b7e_9c42_5a1d_7fe3_2b90);

/// Keys of the tasks of one input, batch by batch.
#[derive(Debug, Default)]
pub struct Keys {
    /// How often each content has been seen.
    seen: HashMap<(u64, u64), u32>,
}

impl Keys {
    /// One key per task of a batch, in order: unique, and equal for equal inputs. Tasks that name each other are in one
    /// batch.
    ///
    /// # Panics
    /// Never: a spec is plain data and always encodes, and an input was checked to be a graph.
    pub fn of_batch(&mut self, tasks: &[InputTask]) -> Vec<String> {
        let chain = Chain::of(tasks.iter().map(|task| &task.spec)).expect("an input is a graph");
        let mut hashes = vec![Uuid::nil(); tasks.len()];
        for place in chain.order {
            let mut content = serde_json::to_vec(&tasks[place].spec).expect("a spec is plain data");
            for link in &chain.links[place] {
                if let Target::Place(upstream) = link.target {
                    content.extend_from_slice(hashes[upstream].as_bytes());
                }
            }
            hashes[place] = Uuid::new_v5(&NAMESPACE, &content);
        }
        let key = |hash: Uuid| {
            let occurrence = self.seen.entry(hash.as_u64_pair()).or_insert(0);
            *occurrence += 1;
            format!("{}.{occurrence}", hash.simple())
        };
        hashes.into_iter().map(key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::lines;
    use proptest::prelude::*;

    fn keys_of(text: &str) -> Vec<String> {
        Keys::default().of_batch(&lines::parse(text.as_bytes()).expect("a good file"))
    }

    #[test]
    fn keys_do_not_depend_on_how_a_list_is_cut_into_batches() {
        let tasks = lines::parse(b"a\nb\na\na\n").expect("a good file");
        let mut keys = Keys::default();
        let batches = tasks.chunks(2).flat_map(|batch| keys.of_batch(batch));
        assert_eq!(batches.collect::<Vec<_>>(), keys_of("a\nb\na\na\n"));
    }

    #[test]
    fn equal_lines_are_told_apart_by_their_occurrence() {
        let keys = keys_of("a\nb\na\n");
        assert_eq!(keys[0].strip_suffix(".1"), keys[2].strip_suffix(".2"));
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn a_changed_line_is_a_new_task_and_the_others_stay() {
        let before = keys_of("a\nb\nc\n");
        let after = keys_of("# a comment moves every line\na\nB\nc\n");
        assert_eq!((&before[0], &before[2]), (&after[0], &after[2]));
        assert!(!after.contains(&before[1]));
    }

    #[test]
    fn what_waits_for_a_changed_task_is_new_too_and_nothing_else() {
        let keys = |compiler: &str| {
            let text = format!(
                "{{\"args\":[\"test\"],\"upstream\":[\"build\"]}}\n\
                 {{\"id\":\"build\",\"args\":[\"{compiler}\"],\"upstream\":[\"fetch\"]}}\n\
                 {{\"id\":\"fetch\",\"args\":[\"git\"]}}"
            );
            let tasks = crate::run::jsonl::parse(text.as_bytes()).expect("a good file");
            Keys::default().of_batch(&tasks)
        };
        let (before, after) = (keys("gcc"), keys("clang"));
        assert!(before[0] != after[0] && before[1] != after[1]);
        assert_eq!(before[2], after[2]);
        assert_eq!(before, keys("gcc"));
    }

    #[test]
    fn keys_are_the_same_in_every_version_of_this_program() {
        assert_eq!(keys_of("true"), ["4a4c39d2691c50038938fb6d7aa63d9e.1"]);
    }

    proptest! {
        #[test]
        fn no_key_stands_twice(lines in proptest::collection::vec("[ab]{0,2}x", 0..40)) {
            let keys = keys_of(&lines.join("\n"));
            let distinct: std::collections::HashSet<_> = keys.iter().collect();
            prop_assert_eq!(distinct.len(), lines.len());
        }
    }
}
