//! The conformance suite on SQLite, and what only a file can show.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::SqliteStore;
use super::db::Reader;
use super::filesystem::WalMode;
use super::thread::StoreThread;
use crate::coordinator::config::{CoordinatorConfig, Durability};
use crate::coordinator::store::clock::ManualClock;
use crate::coordinator::store::conformance::{self, Backend, TERM, conformance_tests};
use crate::coordinator::store::{EndCursor, NewTasks, OpenError, Store, StoreError, StoreReader};
use crate::protocol::TaskSpec;

struct Files {
    dir: TempDir,
    durability: Durability,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            durability: Durability::Process,
        }
    }

    fn config(&self) -> CoordinatorConfig {
        CoordinatorConfig {
            lease: TERM,
            durability: self.durability,
            ..CoordinatorConfig::new(self.dir.path())
        }
    }

    async fn try_open(&self) -> Result<SqliteStore, OpenError> {
        SqliteStore::open(&self.config(), Arc::new(ManualClock::default())).await
    }
}

#[async_trait]
impl Backend for Files {
    async fn open(&self, clock: Arc<ManualClock>) -> Arc<dyn Store> {
        let store = SqliteStore::open(&self.config(), clock).await;
        Arc::new(store.expect("the store opens"))
    }
}

conformance_tests! {
    Files::new();
    fencing::{
        a_result_is_accepted_once_and_repeated_as_a_duplicate,
        a_terminal_state_never_changes,
        a_late_result_counts_until_a_newer_lease_is_granted,
        a_start_under_a_lease_that_was_taken_back_is_stale,
        only_the_holder_of_the_lease_may_report,
        a_later_life_grants_greater_leases,
        a_handed_back_task_is_ready_again_and_its_lease_is_over,
        lost_tries_are_recorded_as_executions,
        a_task_that_never_started_leaves_no_execution,
        ends_are_numbered_without_gaps_and_kept_whole,
    },
    queue::{
        a_repeated_submit_adds_nothing,
        a_submit_of_known_keys_makes_no_suite,
        keys_belong_to_the_suite_that_is_named,
        the_highest_priority_is_claimed_first_then_the_oldest,
        a_holder_gets_only_what_it_can_ever_run,
        ten_thousand_tasks_are_one_submit,
        an_answer_is_bounded_in_bytes,
        a_submission_in_parts_begins_as_a_whole,
        a_submission_that_is_given_up_is_cancelled,
        a_submission_of_one_part_can_be_claimed_at_once,
    },
    holders::{
        an_inventory_is_settled_lease_by_lease,
        a_pause_for_all_reaches_those_who_come_later,
        an_inventory_takes_up_what_nobody_else_has,
        an_execution_goes_on_when_its_lease_is_taken_up_again,
        an_older_session_can_do_nothing,
        a_renewal_keeps_everything_and_silence_loses_it,
        a_suspect_that_was_kept_is_not_lost,
        terms_begin_anew_with_every_life,
        a_holder_without_end_keeps_what_it_has_however_long_it_stands_still,
        a_holder_that_leaves_gives_everything_back,
        a_worker_that_asks_again_gets_its_unstarted_task_again,
        a_paused_holder_is_granted_nothing,
        a_lease_whose_failure_was_accepted_is_no_longer_held,
    },
    life::{
        a_cancel_of_what_nobody_has_is_the_end,
        a_cancel_of_a_held_task_reaches_its_holder,
        a_cancel_beyond_a_cut_path_ends_with_the_lease,
        a_cancelled_task_that_is_handed_back_is_cancelled,
        a_cancelled_suite_keeps_what_had_ended,
        a_cancel_of_many_that_wait_holds_at_once_and_ends_them_afterwards,
        a_failure_is_tried_again_after_its_back_off,
        a_lost_holder_costs_no_allowed_failure,
        some_failures_are_final,
        only_the_kinds_that_are_named_are_tried_again,
        a_retry_is_a_new_task_that_names_the_old,
        everything_survives_a_restart,
    },
    levels::{
        the_books_of_the_levels_balance_in_every_state,
        the_oldest_ready_task_is_found_behind_higher_priorities,
        a_task_that_is_ready_again_waits_from_then_on,
    },
    chains::{
        a_task_waits_for_the_ends_it_names,
        a_failure_ends_all_that_can_no_longer_be_run,
        a_cancel_of_an_upstream_task_cancels_what_needs_it,
        an_end_before_the_submit_counts,
        a_back_off_of_an_upstream_task_is_no_end,
        a_failed_graph_is_repeated_as_a_graph,
        a_long_chain_ends_with_its_first_task,
        follow_ups_come_with_the_end_of_their_task_and_once,
        a_stale_end_and_a_cancelled_task_submit_nothing,
    },
    artifacts::{
        an_artifact_is_kept_with_its_size_and_shown_with_its_task,
        only_the_last_holder_of_a_task_may_leave_artifacts,
    },
    reading::{
        lists_are_filtered_and_go_on_after_a_cursor,
        what_wants_more_than_there_is_is_found_and_not_claimed,
        selectors_name_the_same_tasks_as_their_grammar,
        a_place_in_the_queue_counts_what_goes_before,
        counts_follow_every_change,
        a_task_is_where_it_is,
        a_task_shows_who_has_it_and_how_it_ended,
    },
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_accepted_task_ends_exactly_once_whatever_happens(steps in conformance::model::steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(conformance::model::holds(&Files::new(), steps));
    }
}

#[tokio::test]
async fn on_a_network_file_system_one_connection_keeps_everything_without_shared_memory() {
    let files = Files::new();
    let open = || {
        let config = files.config();
        let clock = Arc::new(ManualClock::default());
        let opened = tokio::task::spawn_blocking(move || {
            SqliteStore::open_as(&config, clock, |_| WalMode::Exclusive)
        });
        async { opened.await.unwrap().unwrap() }
    };
    let store = open().await;
    let batch = NewTasks {
        suite: None,
        tasks: vec![conformance::new_task(None, TaskSpec::argv(["true"]))],
    };
    let submitted = store.submit(batch).await.unwrap();
    let names = std::fs::read_dir(files.dir.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    let shared = names
        .iter()
        .any(|name| name.to_string_lossy().ends_with("-shm"));
    assert!(!shared, "{names:?}");
    store.close().await;
    let store = open().await;
    let uuid = submitted.response.tasks[0].uuid;
    assert!(store.task(uuid).await.unwrap().is_some());
    store.close().await;
}

#[tokio::test]
async fn a_store_that_is_dropped_without_a_close_has_kept_everything() {
    let mut files = Files::new();
    for durability in [Durability::Process, Durability::Power] {
        files.durability = durability;
        let store = files.try_open().await.unwrap();
        submit(&store, 1).await;
        drop(store);
    }
    let store = files.try_open().await.unwrap();
    assert_eq!(store.counts(None).await.unwrap().values().sum::<u64>(), 2);
}

#[tokio::test]
async fn what_was_acknowledged_is_in_the_files_when_the_process_is_killed() {
    let files = Files::new();
    let store = files.try_open().await.unwrap();
    submit(&store, 3).await;
    // What a killed process leaves behind: its files as they are now, without its shared memory.
    let left = [Files::new(), Files::new()];
    for copy in &left {
        for name in ["store.db", "store.db-wal"] {
            std::fs::copy(files.dir.path().join(name), copy.dir.path().join(name)).unwrap();
        }
    }
    let archive = super::SqliteArchive::open(left[0].dir.path())
        .await
        .unwrap();
    let opened = left[1].try_open().await.unwrap();
    let readers: [&dyn StoreReader; 2] = [&archive, &opened];
    for reader in readers {
        assert_eq!(reader.counts(None).await.unwrap().values().sum::<u64>(), 3);
    }
}

#[tokio::test]
async fn a_second_opener_is_told_who_has_the_directory() {
    let files = Files::new();
    let first = files.try_open().await.unwrap();
    let refused = files.try_open().await.expect_err("the directory is in use");
    let text = refused.to_string();
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    assert!(
        text.contains(&files.dir.path().display().to_string()),
        "{text}"
    );
    first.close().await;
    files.try_open().await.expect("it is free again");
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_refused_in_words() {
    let files = Files::new();
    files.try_open().await.unwrap().close().await;
    let conn = Connection::open(files.dir.path().join("store.db")).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let text = files.try_open().await.expect_err("too new").to_string();
    assert!(
        text.contains("99") && text.contains("newer program"),
        "{text}"
    );
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date() {
    let files = Files::new();
    let conn = Connection::open(files.dir.path().join("store.db")).unwrap();
    conn.execute_batch(include_str!("schema_1.sql")).unwrap();
    conn.execute_batch(
        "INSERT INTO suites (uuid, name, created_us) VALUES (zeroblob(16), 'old', 1);
         INSERT INTO demands (tags, milli_cpus, ready) VALUES ('[]', 0, 1);
         INSERT INTO tasks (uuid, suite, demand, state, priority, max_attempts, accepted_us, queued_us, spec_bytes,
                            milli_cpus, mem_bytes, gpus)
         VALUES (zeroblob(16), 1, 1, 1, 0, 1, 1, 1, 17, 0, 0, 0);
         INSERT INTO specs VALUES (1, '{\"args\":[\"true\"]}');
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(conn);
    let store = files.try_open().await.unwrap();
    let task = store.task(uuid::Uuid::nil()).await.unwrap().unwrap();
    assert_eq!(task.spec, TaskSpec::argv(["true"]));
    assert_eq!((task.summary.waits_for, task.upstream.len()), (0, 0));
}

#[tokio::test]
async fn books_that_do_not_add_up_are_a_gap_of_the_levels() {
    let files = Files::new();
    let store = files.try_open().await.unwrap();
    submit(&store, 3).await;
    assert_eq!(store.levels().await.unwrap().gap(), 0);
    store.close().await;
    let conn = Connection::open(files.dir.path().join("store.db")).unwrap();
    conn.execute("UPDATE counts SET n = n - 1", []).unwrap();
    drop(conn);
    let store = files.try_open().await.unwrap();
    assert_eq!(store.levels().await.unwrap().gap(), 1);
}

#[tokio::test]
async fn a_closed_store_refuses_calls() {
    let files = Files::new();
    let store = files.try_open().await.unwrap();
    store.close().await;
    assert!(matches!(store.counts(None).await, Err(StoreError::Closed)));
    assert!(matches!(store.advance().await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn the_files_belong_to_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new();
    let dir = files.dir.path().join("state");
    let config = CoordinatorConfig::new(&dir);
    let store = SqliteStore::open(&config, Arc::new(ManualClock::default()))
        .await
        .unwrap();
    submit(&store, 1).await;
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for name in ["store.db", "store.db-wal", "store.lock"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_claim_reads_the_index_and_not_the_queue() {
    let files = Files::new();
    files.try_open().await.unwrap().close().await;
    let conn = Connection::open(files.dir.path().join("store.db")).unwrap();
    let plan = |sql: &str| {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = statement.parameter_count();
        let rows = statement.query_map(rusqlite::params_from_iter(vec![1; parameters]), |row| {
            row.get::<_, String>(3)
        });
        rows.unwrap()
            .map(Result::unwrap)
            .collect::<Vec<_>>()
            .join("; ")
    };
    for (sql, index) in [
        (super::claim::QUEUE, "tasks_queue"),
        (super::claim::OF_DEMAND, "tasks_ready"),
        (super::cancel::UNWANTED, "tasks_unwanted"),
        (
            super::capacity::AHEAD_BY_PRIORITY,
            "tasks_queue (priority>?)",
        ),
        (
            super::capacity::AHEAD_BY_AGE,
            "tasks_queue (priority=? AND id<?)",
        ),
        (
            super::retry::OF_SUITE,
            "tasks_suite_state (suite=? AND state=?)",
        ),
        (
            super::retry::FAILED,
            "tasks_suite_state (suite=? AND state=?)",
        ),
    ] {
        let plan = plan(sql);
        assert!(plan.contains(index), "{sql}\n{plan}");
    }
    for sql in [super::claim::QUEUE, super::claim::OF_DEMAND] {
        let plan = plan(sql);
        assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
    let due = plan("SELECT min(queued_us) FROM tasks WHERE state = 0 AND waits = 0");
    assert!(due.contains("tasks_due"), "{due}");
    let held = plan("SELECT id FROM tasks t WHERE t.holder = ?1 AND cancel > 0");
    assert!(held.contains("tasks_held"), "{held}");
    let ends = plan("SELECT id FROM tasks t WHERE t.end_seq > ?1 ORDER BY t.end_seq LIMIT ?2");
    assert!(
        ends.contains("tasks_end") && !ends.contains("TEMP B-TREE"),
        "{ends}"
    );
    for edges in [super::chains::FROM_ENDED, super::chains::BEYOND] {
        let edges = plan(edges);
        assert!(edges.contains("upstreams_upstream"), "{edges}");
        assert!(
            !edges.contains("SCAN e") && !edges.contains("SCAN t"),
            "{edges}"
        );
    }
    let update = plan(super::rows::UPDATE_TASK);
    assert!(
        update.contains("SEARCH tasks USING INTEGER PRIMARY KEY"),
        "{update}"
    );
}

#[tokio::test]
async fn a_refused_job_does_not_undo_its_neighbors() {
    let files = Files::new();
    let store = Arc::new(files.try_open().await.unwrap());
    // Queued together, so that they share transactions.
    let calls = (0..40).map(|n| {
        let store = Arc::clone(&store);
        async move {
            if n % 3 == 0 {
                let suite = Some(crate::protocol::api::SuiteRef::Uuid(uuid::Uuid::nil()));
                let tasks = Vec::new();
                assert!(store.submit(NewTasks { suite, tasks }).await.is_err());
            } else {
                submit(&store, 2).await;
            }
        }
    });
    futures_util::future::join_all(calls).await;
    let counts = store.counts(None).await.unwrap();
    assert_eq!(counts.values().sum::<u64>(), 52);
    assert_eq!(store.audit().await.unwrap().gap(), 0);
    assert_eq!(store.last_end().await.unwrap(), EndCursor(0));
}

#[tokio::test]
async fn a_refused_job_takes_no_number_with_it() {
    let files = Files::new();
    let store = files.try_open().await.unwrap();
    let refused = || {
        store.write("refuse", |db| {
            db.tally.last_end += 10;
            db.tally.last_task += 10;
            Err::<(), _>(StoreError::Replaced)
        })
    };
    // Alone, and among others that share its transaction.
    assert!(refused().await.is_err());
    let (_, refused, _) = tokio::join!(submit(&store, 1), refused(), submit(&store, 1));
    assert!(matches!(refused, Err(StoreError::Replaced)));
    let tally = store.write("look", |db| Ok(db.tally)).await.unwrap();
    assert_eq!((tally.last_task, tally.last_end), (2, 0));
}

async fn submit(store: &SqliteStore, tasks: usize) {
    let spec = TaskSpec::argv(["true"]);
    let task = conformance::new_task(None, spec);
    let tasks = vec![task; tasks];
    store.submit(NewTasks { suite: None, tasks }).await.unwrap();
}

#[tokio::test]
async fn calls_that_overlap_are_all_answered() {
    let files = Files::new();
    let store = Arc::new(files.try_open().await.unwrap());
    let calls = (0..200).map(|_| submit(&store, 1));
    let all = futures_util::future::join_all(calls);
    tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .expect("no call waits forever");
    assert_eq!(store.counts(None).await.unwrap().values().sum::<u64>(), 200);
}

#[tokio::test]
async fn a_list_that_takes_too_long_is_given_up_and_the_next_is_answered() {
    const ENDLESS: &str =
        "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n";
    let conn = Connection::open_in_memory().unwrap();
    let reader = Reader::of_lists(conn, Duration::from_millis(50)).unwrap();
    let thread = StoreThread::spawn("list", reader).unwrap();
    let ask = |sql: &'static str| {
        thread.call("list_tasks", move |reader| {
            Ok(reader.conn.query_row(sql, [], |row| row.get::<_, i64>(0))?)
        })
    };
    let error = ask(ENDLESS).await.unwrap_err();
    assert!(matches!(error, StoreError::TookTooLong { .. }), "{error:?}");
    assert!(
        error.to_string().contains("a suite, a state, a label"),
        "{error}"
    );
    assert_eq!(ask("SELECT 7").await.unwrap(), 7);
}
