//! The loop with a scripted peer and a scripted runner, on a clock that jumps.

use crate::worker::executor::StopOrder;
use crate::worker::runner::TELL_WITHIN;
use std::sync::atomic::Ordering;

use super::super::*;
use super::fake::{Stage, away, cancel, shutdown};
use crate::exit_code::Exit;
use crate::protocol::{Mode, ReportTaskOp, Verdict};
use crate::worker::executor::StopReason;
use crate::worker::outbox;
use crate::worker::state::StopCause;

const LEAVE: Mode = Mode::Shutdown {
    graceful: true,
    deadline_ms: 0,
};

#[tokio::test(start_paused = true)]
async fn tasks_are_fetched_run_and_reported_one_after_the_other() {
    for stage in [Stage::managed(), Stage::independent()] {
        let ended = stage.play(async {
            (1..=3).for_each(|id| stage.give(id, "exit"));
            stage.comm.until_story(3, &["started", "completed"]).await;
            stage.comm.want(LEAVE, Vec::new());
        });
        let ended = ended.await;
        assert_eq!((ended.exit(), ended.tally.completed), (Exit::Ok, 3));
        assert_eq!(stage.runner.begun(), [1, 2, 3]);
        let seqs: Vec<u64> = stage
            .comm
            .seen()
            .reports
            .iter()
            .map(|report| report.seq)
            .collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5, 6]);
        assert!(stage.comm.seen().left, "it says goodbye");
    }
}

#[tokio::test(start_paused = true)]
async fn a_graceful_shutdown_lets_the_task_end_first() {
    let stage = Stage::managed();
    let ended = stage.play(async {
        stage.give(1, "told");
        stage.comm.until_story(1, &["started"]).await;
        stage.comm.want(LEAVE, Vec::new());
        tokio::time::sleep(Duration::from_secs(40)).await;
        stage.runner.tell.notify_one();
    });
    let ended = ended.await;
    assert_eq!(ended.exit(), Exit::Ok);
    assert_eq!(ended.stop.map(|stop| stop.cause), Some(StopCause::Control));
    assert_eq!(stage.comm.seen().story(1), ["started", "completed"]);
}

#[tokio::test(start_paused = true)]
async fn an_immediate_shutdown_kills_the_task_and_hands_it_back() {
    let stage = Stage::managed();
    let ended = stage.play(async {
        stage.give(1, "wait");
        stage.comm.until_story(1, &["started"]).await;
        stage.comm.want(shutdown(false, 0), Vec::new());
    });
    assert_eq!(ended.await.exit(), Exit::HandedBack);
    assert_eq!(stage.comm.seen().story(1), ["started", "released"]);
    assert_eq!(
        stage.runner.orders(),
        [StopOrder::Immediate(StopReason::HandBack)]
    );
}

#[tokio::test(start_paused = true)]
async fn past_the_deadline_the_task_is_ended_and_handed_back() {
    let stage = Stage::managed();
    let begun = tokio::time::Instant::now();
    let ended = stage.play(async {
        stage.give(1, "wait");
        stage.comm.until_story(1, &["started"]).await;
        stage.comm.want(shutdown(true, 3000), Vec::new());
    });
    assert_eq!(ended.await.exit(), Exit::HandedBack);
    assert_eq!(stage.comm.seen().story(1), ["started", "released"]);
    assert_eq!(
        stage.runner.orders(),
        [StopOrder::Graceful(StopReason::HandBack)]
    );
    assert!(begun.elapsed() >= Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_the_running_task_and_the_next_one_runs() {
    for stage in [Stage::managed(), Stage::independent()] {
        let ended = stage.play(async {
            stage.give(1, "wait");
            stage.comm.until_story(1, &["started"]).await;
            stage.comm.want(Mode::Run, vec![cancel(1, true)]);
            stage.comm.until_story(1, &["started", "cancelled"]).await;
            stage.give(2, "exit");
            stage.comm.until_story(2, &["started", "completed"]).await;
            stage.comm.want(LEAVE, vec![cancel(1, true)]);
        });
        let ended = ended.await;
        assert_eq!((ended.exit(), ended.tally.cancelled), (Exit::Ok, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_comes_together_with_its_task_prevents_the_start() {
    let stage = Stage::managed();
    let ended = stage.play(async {
        stage.comm.cancel_with_next_task(cancel(1, false));
        stage.give(1, "exit");
        stage.comm.until_story(1, &["cancelled"]).await;
        stage.comm.want(LEAVE, Vec::new());
    });
    ended.await;
    assert!(stage.runner.begun().is_empty());
}

#[tokio::test(start_paused = true)]
async fn while_paused_nothing_is_fetched_and_what_runs_goes_on() {
    let stage = Stage::managed();
    let ended = stage.play(async {
        stage.give(1, "told");
        stage.comm.until_story(1, &["started"]).await;
        stage.comm.want(Mode::Pause, Vec::new());
        stage.runner.tell.notify_one();
        stage.comm.until_story(1, &["started", "completed"]).await;
        stage.give(2, "exit");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(
            (stage.comm.seen().fetches, stage.runner.begun()),
            (1, vec![1])
        );
        stage.comm.want(Mode::Run, Vec::new());
        stage.comm.until_story(2, &["started", "completed"]).await;
        stage.comm.want(LEAVE, Vec::new());
    });
    assert_eq!(ended.await.exit(), Exit::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_lost_manager_ends_the_task_at_once_and_nothing_more_is_reported() {
    let stage = Stage::managed();
    let begun = tokio::time::Instant::now();
    let ended = stage.play(async {
        stage.give(1, "wait");
        stage.comm.until_story(1, &["started"]).await;
        stage.comm.lose(CommError::PeerGone { peer: "manager" });
    });
    let ended = ended.await;
    assert_eq!(ended.exit(), Exit::ManagerGone);
    assert!(ended.reason().contains("manager"), "{}", ended.reason());
    assert_eq!(
        stage.runner.orders(),
        [StopOrder::Immediate(StopReason::HandBack)]
    );
    assert_eq!(stage.comm.seen().story(1), ["started"]);
    assert!(begun.elapsed() <= 2 * TELL_WITHIN, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_does_not_end_cannot_keep_a_worker_without_a_manager() {
    let stage = Stage::managed();
    let ended = stage.play(async {
        stage.give(1, "told");
        stage.comm.until_story(1, &["started"]).await;
        stage.comm.lose(CommError::PeerGone { peer: "manager" });
    });
    let begun = tokio::time::Instant::now();
    assert_eq!(ended.await.exit(), Exit::ManagerGone);
    let took = begun.elapsed() - IMMEDIATE_LIMIT;
    assert!(took <= 2 * TELL_WITHIN, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_result_survives_three_failing_attempts() {
    for stage in [Stage::managed(), Stage::independent()] {
        let ended = stage.play(async {
            stage.comm.answer_reports([
                Ok(Verdict::Accepted),
                Err(away()),
                Err(away()),
                Err(away()),
            ]);
            stage.give(1, "exit");
            stage.comm.until(|seen| seen.reports.len() == 5).await;
            stage.comm.want(LEAVE, Vec::new());
        });
        let ended = ended.await;
        let reports = stage.comm.seen().reports;
        assert!(
            reports[1..].iter().all(|report| *report == reports[1]),
            "{reports:?}"
        );
        assert_eq!(
            (ended.exit(), ended.tally.completed, ended.tally.retries),
            (Exit::Ok, 1, 3)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_cannot_be_reported_does_not_lose_the_task() {
    for stage in [Stage::managed(), Stage::independent()] {
        let ended = stage.play(async {
            let later = Ok(Verdict::RetryLater { after_ms: 2000 });
            stage.comm.answer_reports([Err(away()), later, Err(away())]);
            stage.give(1, "exit");
            stage.comm.until_story(1, &["started", "completed"]).await;
            stage.comm.want(LEAVE, Vec::new());
        });
        let ended = ended.await;
        assert_eq!((ended.exit(), ended.tally.completed), (Exit::Ok, 1));
        assert_eq!(stage.runner.begun(), [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_independent_worker_waits_for_the_verdict_on_the_start() {
    let stage = Stage::independent();
    let ended = stage.play(async {
        let verdicts = [
            Verdict::Cancel,
            Verdict::Accepted,
            Verdict::NotOwner,
            Verdict::Accepted,
        ];
        stage.comm.answer_reports(verdicts.map(Ok));
        (1..=3).for_each(|id| stage.give(id, "exit"));
        stage.comm.until_story(3, &["started", "completed"]).await;
        stage.comm.want(LEAVE, Vec::new());
    });
    let ended = ended.await;
    let seen = stage.comm.seen();
    assert_eq!(
        seen.story(1),
        ["started", "cancelled"],
        "a cancel was faster"
    );
    assert_eq!(seen.story(2), ["started"], "it is somebody else's");
    assert_eq!(stage.runner.begun(), [3]);
    assert_eq!((ended.tally.cancelled, ended.tally.dropped), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_running_task_that_is_somebody_elses_is_killed_and_forgotten() {
    let stage = Stage::managed();
    let ended = stage.play(async {
        stage.comm.answer_reports([Ok(Verdict::Stale)]);
        stage.give(1, "wait");
        stage.give(2, "exit");
        stage.comm.until_story(2, &["started", "completed"]).await;
        stage.comm.want(LEAVE, Vec::new());
    });
    ended.await;
    assert_eq!(stage.comm.seen().story(1), ["started"]);
    assert_eq!(
        stage.runner.orders(),
        [StopOrder::Immediate(StopReason::Cancelled)]
    );
}

#[tokio::test(start_paused = true)]
async fn with_a_full_outbox_nothing_is_fetched_until_there_is_room() {
    let stage = Stage::managed();
    let ended = stage.play(async {
        stage
            .comm
            .answer_reports((0..4).map(|_| Ok(Verdict::RetryLater { after_ms: 20_000 })));
        (1..=40).for_each(|id| stage.give(id, "exit"));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(stage.runner.begun().len(), outbox::CAPACITY / 2);
        assert_eq!(stage.comm.seen().fetches, outbox::CAPACITY / 2);
        stage.comm.until_story(40, &["started", "completed"]).await;
        stage.comm.want(LEAVE, Vec::new());
    });
    let ended = ended.await;
    assert_eq!((ended.exit(), ended.tally.completed), (Exit::Ok, 40));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_runner_is_the_tasks_failure_and_not_the_workers() {
    let stage = Stage::managed();
    let ended = stage.play(async {
        stage.give(1, "panic");
        stage.give(2, "exit");
        stage.comm.until_story(2, &["started", "completed"]).await;
        stage.comm.want(LEAVE, Vec::new());
    });
    assert_eq!(ended.await.tally.failed, 1);
    let seen = stage.comm.seen();
    let failed = seen.reports.iter().find_map(|report| match &report.op {
        ReportTaskOp::Failed(result) => result.message.clone(),
        _ => None,
    });
    let message = failed.expect("a failed task");
    assert!(message.contains("the runner broke"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn heartbeats_go_on_while_a_task_runs() {
    let stage = Stage::independent();
    let ended = stage.play(async {
        stage.give(1, "told");
        stage.comm.until_story(1, &["started"]).await;
        tokio::time::sleep(Duration::from_secs(95)).await;
        assert_eq!(stage.comm.seen().heartbeats, 10);
        stage.runner.tell.notify_one();
        stage.comm.until_story(1, &["started", "completed"]).await;
        stage.comm.want(LEAVE, Vec::new());
    });
    ended.await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_managed_worker_sends_no_heartbeat() {
    let stage = Stage::managed();
    let ended = stage.play(async {
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(stage.comm.seen().heartbeats, 0);
        stage.comm.want(LEAVE, Vec::new());
    });
    ended.await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_heartbeat_ends_the_task_and_the_worker() {
    let stage = Stage::independent();
    let ended = stage.play(async {
        stage.give(1, "wait");
        stage.comm.until_story(1, &["started"]).await;
        let reason = "the worker was removed".into();
        stage.comm.refuse_heartbeats(CommError::Refused { reason });
    });
    assert_eq!(ended.await.exit(), Exit::Refused);
    assert_eq!(
        stage.runner.orders(),
        [StopOrder::Immediate(StopReason::HandBack)]
    );
}

#[tokio::test(start_paused = true)]
async fn fetching_goes_on_after_errors_that_pass_and_stops_after_a_refusal() {
    let stage = Stage::independent();
    let ended = stage.play(async {
        (0..5).for_each(|_| stage.comm.answer_fetch(Err(away())));
        let retry_after = Duration::from_secs(1);
        stage.comm.answer_fetch(Ok(Fetched::Empty { retry_after }));
        stage.give(1, "exit");
        stage.comm.until_story(1, &["started", "completed"]).await;
        let reason = "the token has expired".into();
        stage.comm.answer_fetch(Err(CommError::Refused { reason }));
    });
    let ended = ended.await;
    assert_eq!((ended.exit(), ended.tally.completed), (Exit::Refused, 1));
    assert_eq!(stage.comm.seen().fetches, 8);
}

#[tokio::test(start_paused = true)]
async fn a_worker_leaves_when_nothing_more_will_come() {
    let stage = Stage::managed();
    let ended = stage
        .play(async { stage.comm.answer_fetch(Ok(Fetched::Draining)) })
        .await;
    assert_eq!(ended.exit(), Exit::Ok);
    assert_eq!(ended.stop.map(|stop| stop.cause), Some(StopCause::Draining));
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_does_not_wait_for_the_task() {
    let stage = Stage::managed();
    let deadline = Duration::from_secs(20);
    let ended = stage.play(async {
        stage.give(1, "wait");
        stage.comm.until_story(1, &["started"]).await;
        for _ in 0..2 {
            let request = ShutdownRequest::Graceful { deadline };
            stage.signals_tx.send(request).await.unwrap();
        }
    });
    let begun = tokio::time::Instant::now();
    assert_eq!(ended.await.exit(), Exit::HandedBack);
    assert_eq!(
        stage.runner.orders(),
        [StopOrder::Immediate(StopReason::HandBack)]
    );
    assert!(begun.elapsed() <= 2 * TELL_WITHIN, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn delivering_the_last_reports_is_bounded() {
    let stage = Stage::independent();
    let ended = stage.play(async {
        stage.comm.answer_reports([Ok(Verdict::Accepted)]);
        stage.comm.answer_reports((0..1000).map(|_| Err(away())));
        stage.give(1, "exit");
        stage.comm.until_story(1, &["started", "completed"]).await;
        stage.comm.want(LEAVE, Vec::new());
    });
    let begun = tokio::time::Instant::now();
    let ended = ended.await;
    assert_eq!((ended.exit(), ended.undelivered), (Exit::ManagerGone, 1));
    assert_eq!(ended.tally.completed, 0, "nobody took it");
    let took = begun.elapsed();
    assert!(took >= FLUSH_LIMIT && took < FLUSH_LIMIT * 2, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_status_says_what_is_in_hand_and_counts_what_was_taken() {
    let stage = Stage::managed();
    let ended = stage.play(async {
        stage.give(7, "told");
        stage.comm.until_story(7, &["started"]).await;
        assert_eq!(*stage.status.in_hand.lock().unwrap(), [Some(7)]);
        assert_eq!(
            stage.status.phases.lock().unwrap().last(),
            Some(&Phase::Engaged)
        );
        stage.runner.tell.notify_one();
        stage.comm.until_story(7, &["started", "completed"]).await;
        stage.comm.want(LEAVE, Vec::new());
    });
    let ended = ended.await;
    assert_eq!(*stage.status.in_hand.lock().unwrap(), [Some(7), None]);
    assert_eq!(*stage.status.tally.lock().unwrap(), ended.tally);
    assert_eq!(
        stage.status.phases.lock().unwrap().last(),
        Some(&Phase::Leaving)
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_task_left_is_delivered_beside_the_next_tasks_and_waited_for_at_the_end() {
    let stage = Stage::managed();
    stage.sender.is_slow.store(true, Ordering::Relaxed);
    let ended = stage.play(async {
        stage.give(1, "leave");
        stage.give(2, "exit");
        stage.comm.until_story(2, &["started", "completed"]).await;
        stage.comm.want(LEAVE, Vec::new());
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!stage.comm.seen().left, "an upload is under way");
        stage.sender.tell.notify_one();
    });
    assert_eq!(ended.await.exit(), Exit::Ok);
    let begun = stage.sender.begun.lock().unwrap().clone();
    assert_eq!(begun, [(1, Some("/upload".to_owned()))]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_deliveries_are_stuck_goes_on_as_long_as_its_disk_has_room() {
    let stage = Stage::managed();
    stage.sender.is_slow.store(true, Ordering::Relaxed);
    let ended = stage.play(async {
        (1..=40).for_each(|id| stage.give(id, "leave"));
        stage.comm.until_story(40, &["started", "completed"]).await;
        stage.comm.want(LEAVE, Vec::new());
        stage.sender.tell.notify_waiters();
    });
    assert_eq!(ended.await.exit(), Exit::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_disk_is_full_of_what_waits_fetches_nothing_more() {
    let stage = Stage::managed();
    stage.sender.is_slow.store(true, Ordering::Relaxed);
    stage.sender.is_full.store(true, Ordering::Relaxed);
    let ended = stage.play(async {
        (1..=9).for_each(|id| stage.give(id, "leave"));
        stage.comm.until_story(5, &["started", "completed"]).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(stage.runner.begun(), [1, 2, 3, 4, 5]);
        stage.comm.want(LEAVE, Vec::new());
        stage.sender.tell.notify_waiters();
    });
    assert_eq!(ended.await.exit(), Exit::Ok);
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_report_names_is_thrown_away() {
    let stage = Stage::managed();
    let answers = [Ok(Verdict::Accepted), Ok(Verdict::Stale)];
    stage.comm.answer_reports(answers);
    let ended = stage.play(async {
        stage.give(1, "leave");
        stage.comm.until_story(1, &["started", "completed"]).await;
        stage.comm.want(LEAVE, Vec::new());
    });
    assert_eq!(ended.await.exit(), Exit::Ok);
    assert_eq!(stage.sender.begun.lock().unwrap().clone(), [(1, None)]);
}
