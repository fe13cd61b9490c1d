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
        let input = text.map(|text| Input {
            source: "tasks.txt".to_owned(),
            single_command: false,
            tasks: lines::parse(text.as_bytes()).unwrap(),
        });
        let request = Request {
            input,
            state_dir: self.dir.path(),
            defaults: &SpecDefaults::default(),
            retry_failed,
        };
        make(&self.coordinator, request).await
    }

    async fn state(&self, line: u64, text: &str) -> TaskState {
        let plan = self.plan(Some(text), false).await.unwrap();
        let manifest = Manifest::read(self.dir.path()).unwrap().unwrap();
        let task = manifest
            .tasks
            .iter()
            .find(|task| task.line == line)
            .unwrap();
        assert_eq!(manifest.suite, plan.suite);
        self.coordinator
            .task(task.uuid)
            .await
            .unwrap()
            .summary
            .state
    }
}

#[tokio::test]
async fn a_first_input_is_all_new() {
    let place = Place::new().await;
    let plan = place.plan(Some("a\n\nb\n"), false).await.unwrap();
    assert_eq!(plan.ledger.counts().unfinished, 2);
    assert_eq!((plan.command(3), plan.command(2)), ("b", ""));
    assert_eq!((plan.notices.len(), plan.earlier.len()), (0, 0));
}

#[tokio::test]
async fn the_same_input_again_adds_nothing() {
    let place = Place::new().await;
    let first = place.plan(Some("a\nb\n"), false).await.unwrap();
    let second = place.plan(Some("# moved\nb\na\n"), false).await.unwrap();
    assert_eq!(first.suite, second.suite);
    assert_eq!(
        place
            .coordinator
            .counts(None)
            .await
            .unwrap()
            .values()
            .sum::<u64>(),
        2
    );
    assert_eq!(second.command(2), "b");
}

#[tokio::test]
async fn a_lost_note_is_made_good_by_the_same_input() {
    let place = Place::new().await;
    let first = place.plan(Some("a\n"), false).await.unwrap();
    std::fs::remove_file(place.dir.path().join("run.json")).unwrap();
    let error = place.plan(None, false).await.unwrap_err();
    assert!(matches!(error, RunError::NothingToResume(_)) && error.is_usage());
    let second = place.plan(Some("a\n"), false).await.unwrap();
    assert_eq!(first.suite, second.suite);
    assert_eq!(
        place
            .coordinator
            .counts(None)
            .await
            .unwrap()
            .values()
            .sum::<u64>(),
        1
    );
}

#[tokio::test]
async fn without_an_input_the_last_one_is_resumed() {
    let place = Place::new().await;
    place.plan(Some("a\nb 'c'\n"), false).await.unwrap();
    let resumed = place.plan(None, false).await.unwrap();
    assert_eq!(resumed.ledger.counts().unfinished, 2);
    assert!(resumed.command(2).contains('b'), "{}", resumed.command(2));
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
    let task = first.ledger.unfinished().next().unwrap().1;
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
    assert_eq!(place.state(1, text).await, TaskState::Ready);
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
