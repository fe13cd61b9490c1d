//! Plans on a real store: what is new, what stays, what is cancelled, what is repeated.

use super::*;
use crate::coordinator::CoordinatorConfig;
use crate::run::lines;

/// A state directory with its coordinator.
struct Place {
    dir: tempfile::TempDir,
    coordinator: Coordinator,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::open(CoordinatorConfig::new(dir.path()))
            .await
            .unwrap();
        Self { dir, coordinator }
    }

    async fn plan(&self, text: Option<&str>, retry_failed: bool) -> Result<Plan, RunError> {
        self.plan_in_parts(text, retry_failed, usize::MAX).await
    }

    /// Takes an input in batches of `size`.
    async fn plan_in_parts(
        &self,
        text: Option<&str>,
        retry_failed: bool,
        size: usize,
    ) -> Result<Plan, RunError> {
        let defaults = SpecDefaults::default();
        let settings = Settings {
            state_dir: self.dir.path(),
            defaults: &defaults,
            retry_failed,
            shuffle: false,
        };
        let mut ledger = Ledger::default();
        let mut taken = Taken::default();
        let mut add = |some: Taken| {
            taken.open.extend(some.open);
            taken.earlier.extend(some.earlier);
        };
        let mut intake = match text {
            Some(text) => {
                let mut intake =
                    Intake::begin(&self.coordinator, settings, "tasks.txt", false).await?;
                let tasks = lines::parse(text.as_bytes()).unwrap();
                for batch in tasks.chunks(size) {
                    add(intake.take(&mut ledger, batch.to_vec()).await?);
                }
                intake
            }
            None => {
                let mut intake = Intake::resume(&self.coordinator, settings).await?;
                while let Some(some) = intake.take_noted(&mut ledger).await? {
                    add(some);
                }
                intake
            }
        };
        let (rest, notices) = intake.finish(&mut ledger).await?;
        add(rest);
        ledger.close();
        Ok(Plan {
            suite: intake.suite(),
            ledger,
            taken,
            notices,
        })
    }

    async fn tasks(&self) -> Vec<crate::protocol::api::TaskSummary> {
        self.coordinator
            .tasks(&TaskFilter::default())
            .await
            .unwrap()
            .tasks
    }

    /// The state of the newest task with this command.
    async fn state(&self, command: &str) -> TaskState {
        let tasks = self.tasks().await;
        let found = tasks.iter().rfind(|task| task.command == command);
        found.unwrap().state
    }

    async fn count(&self) -> u64 {
        self.coordinator.counts(None).await.unwrap().values().sum()
    }
}

/// What came of an input.
struct Plan {
    suite: Uuid,
    ledger: Ledger,
    taken: Taken,
    notices: Vec<String>,
}

#[tokio::test]
async fn a_first_input_is_all_new() {
    let place = Place::new().await;
    let plan = place.plan(Some("a\n\nb\n"), false).await.unwrap();
    assert_eq!(plan.ledger.counts().unfinished, 2);
    assert_eq!(plan.taken.open, [1, 3].map(super::Place::line));
    assert_eq!((plan.notices.len(), plan.taken.earlier.len()), (0, 0));
}

#[tokio::test]
async fn the_same_input_again_adds_nothing_however_it_is_cut() {
    let place = Place::new().await;
    let first = place
        .plan_in_parts(Some("a\nb\na\n"), false, 1)
        .await
        .unwrap();
    let second = place.plan(Some("# moved\nb\na\na\n"), false).await.unwrap();
    assert_eq!(first.suite, second.suite);
    assert_eq!(place.count().await, 3);
    assert_eq!(second.ledger.counts().unfinished, 3);
}

#[tokio::test]
async fn a_lost_note_is_made_good_by_the_same_input() {
    let place = Place::new().await;
    let first = place.plan(Some("a\n"), false).await.unwrap();
    std::fs::remove_file(place.dir.path().join("run.json")).unwrap();
    let error = place.plan(None, false).await.err().unwrap();
    assert!(matches!(error, RunError::NothingToResume(_)) && error.is_usage());
    let second = place.plan(Some("a\n"), false).await.unwrap();
    assert_eq!(first.suite, second.suite);
    assert_eq!(place.count().await, 1);
}

#[tokio::test]
async fn without_an_input_the_last_one_is_resumed() {
    let place = Place::new().await;
    place.plan(Some("a\n\nb 'c'\n"), false).await.unwrap();
    for _ in 0..2 {
        let resumed = place.plan(None, false).await.unwrap();
        assert_eq!(resumed.ledger.counts().unfinished, 2);
        assert_eq!(resumed.taken.open, [1, 3].map(super::Place::line));
        assert_eq!(resumed.notices.len(), 0, "{:?}", resumed.notices);
    }
}

#[tokio::test]
async fn a_run_that_was_killed_while_it_accepted_goes_on_with_and_without_its_input() {
    let place = Place::new().await;
    let defaults = SpecDefaults::default();
    let settings = Settings {
        state_dir: place.dir.path(),
        defaults: &defaults,
        retry_failed: false,
        shuffle: false,
    };
    let text = "a\nb\nc\nd\n";
    let mut intake = Intake::begin(&place.coordinator, settings, "tasks.txt", false)
        .await
        .unwrap();
    let mut ledger = Ledger::default();
    let tasks = lines::parse(text.as_bytes()).unwrap();
    intake.take(&mut ledger, tasks[..2].to_vec()).await.unwrap();
    // What the kill tore away: the note about the second batch.
    let notes = std::fs::read(place.dir.path().join("run.tasks")).unwrap();
    intake
        .take(&mut ledger, tasks[2..3].to_vec())
        .await
        .unwrap();
    drop(intake);
    std::fs::write(place.dir.path().join("run.tasks"), notes).unwrap();

    let resumed = place.plan(None, false).await.unwrap();
    assert_eq!(resumed.taken.open, [1, 2, 3].map(super::Place::line));
    assert!(
        resumed.notices[0].contains("tasks.txt"),
        "{:?}",
        resumed.notices
    );
    let again = place.plan(Some(text), false).await.unwrap();
    assert_eq!((again.ledger.counts().total, place.count().await), (4, 4));
    assert_eq!(again.notices.len(), 0);
}

#[tokio::test]
async fn what_left_the_input_is_cancelled_and_does_not_count() {
    let place = Place::new().await;
    place.plan(Some("a\nwrong\n"), false).await.unwrap();
    let plan = place.plan(Some("a\nright\n"), false).await.unwrap();
    let counts = plan.ledger.counts();
    assert_eq!((counts.total, counts.unfinished), (2, 2));
    assert!(
        plan.notices[0].contains("1 unfinished task of an earlier input"),
        "{:?}",
        plan.notices
    );
    let stored = place.coordinator.counts(Some(plan.suite)).await.unwrap();
    assert_eq!(stored.get(&TaskState::Cancelled), Some(&1));
}

#[tokio::test]
async fn what_ended_stays_until_it_is_repeated_on_demand() {
    let place = Place::new().await;
    let text = "a\nb\n";
    let first = place.plan(Some(text), false).await.unwrap();
    assert_eq!(first.ledger.counts().unfinished, 2);
    let task = place.tasks().await[0].uuid;
    place.coordinator.cancel(task, true).await.unwrap();

    let again = place.plan(Some(text), false).await.unwrap();
    let counts = again.ledger.counts();
    assert_eq!(
        (counts.cancelled, counts.earlier, counts.unfinished),
        (1, 1, 1)
    );

    let repeated = place.plan(Some(text), true).await.unwrap();
    assert_eq!(repeated.ledger.counts().unfinished, 2);
    assert_eq!(repeated.notices, ["1 task repeated"]);
    // The repetition is the line's task from now on, with and without the input.
    for text in [Some(text), None] {
        let plan = place.plan(text, false).await.unwrap();
        assert_eq!(
            (plan.ledger.counts().unfinished, plan.notices.len()),
            (2, 0)
        );
    }
    assert_eq!(place.state("a").await, TaskState::Ready);
}

#[tokio::test]
async fn tasks_of_others_are_pointed_out() {
    let place = Place::new().await;
    place
        .coordinator
        .submit(SubmitRequest {
            suite: Some(SuiteRef::New {
                name: "other".to_owned(),
            }),
            tasks: vec![SubmitTask {
                key: None,
                spec: TaskSpec::shell_line("x"),
            }],
        })
        .await
        .unwrap();
    let plan = place.plan(Some("a\n"), false).await.unwrap();
    assert_eq!(plan.ledger.counts().total, 1);
    assert!(
        plan.notices[0].contains("1 unfinished task of other suites"),
        "{:?}",
        plan.notices
    );
}

#[test]
fn a_command_reads_as_it_was_written() {
    assert_eq!(
        command_text(&TaskSpec::shell_line("a | b 'c'")),
        "a | b 'c'"
    );
    assert_eq!(command_text(&TaskSpec::argv(["echo", "a b"])), "echo 'a b'");
}
