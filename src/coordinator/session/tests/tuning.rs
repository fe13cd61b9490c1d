//! Orders about pollers on their way to a manager, and its answers on their way back.

use super::*;
use crate::coordinator::CoordinatorError;
use crate::protocol::session::Welcome;
use crate::protocol::tuning::{
    ManagerPoller, Pollers, SingleWorker, TuneOrder, Tuning, TuningReport,
};

fn everybody(poll: &str) -> TuneOrder {
    TuneOrder {
        manager: Some(poll.parse().unwrap()),
        workers: Some(poll.parse().unwrap()),
        single: Vec::new(),
    }
}

fn alone(worker: u16, poll: &str) -> TuneOrder {
    TuneOrder {
        single: vec![SingleWorker {
            worker,
            poll: poll.parse().unwrap(),
        }],
        ..TuneOrder::default()
    }
}

impl Bench {
    /// An order that is on its way.
    fn tune(&self, order: TuneOrder) -> tokio::task::JoinHandle<Result<Pollers, CoordinatorError>> {
        let coordinator = self.coordinator.clone();
        tokio::spawn(async move { coordinator.tune(MANAGER, order).await })
    }

    /// A session of another life of the manager.
    async fn reborn(&self, boot: u64) -> (Peer, Welcome) {
        let peer = self.link().await;
        let hello = Hello {
            boot: Boot(boot),
            earlier: Vec::new(),
            ..hello(Vec::new())
        };
        peer.send(ToCoordinator::Hello(hello)).await;
        match peer.next().await {
            ToManager::Welcome(welcome) => (peer, welcome),
            other => panic!("no welcome but {other:?}"),
        }
    }
}

impl Peer {
    /// The next tuning with an order like this.
    async fn tuning(&self, wanted: &TuneOrder) -> (u64, Tuning) {
        let has = |state: &ControlState| {
            let tuning = state.tuning.as_ref();
            tuning.is_some_and(|tuning| tuning.order == *wanted)
        };
        let state = self.directive(has).await;
        (state.epoch, state.tuning.expect("it was waited for"))
    }

    async fn answer_tuning(&self, epoch: u64, number: u64, poll: &str) -> Pollers {
        let pollers = Pollers {
            manager: ManagerPoller {
                poll: poll.parse().unwrap(),
                changed: true,
            },
            workers: Vec::new(),
        };
        let report = TuningReport {
            epoch,
            number,
            pollers: pollers.clone(),
        };
        self.send(ToCoordinator::Tuned(report)).await;
        pollers
    }
}

pub(super) async fn an_order_about_pollers_ends_with_the_managers_answer(bench: Bench) {
    let (peer, _) = bench.session(Vec::new()).await;
    let order = everybody("busy");
    let asked = bench.tune(order.clone());
    let (epoch, tuning) = peer.tuning(&order).await;
    // Answers to something else, or of another life of the coordinator, are not taken for its own.
    peer.answer_tuning(epoch, tuning.number - 1, "event").await;
    peer.answer_tuning(epoch + 1, tuning.number, "event").await;
    let answer = peer.answer_tuning(epoch, tuning.number, "busy").await;
    assert_eq!(asked.await.unwrap().unwrap(), answer);
}

pub(super) async fn orders_about_pollers_add_up_and_last_as_long_as_the_manager(bench: Bench) {
    let (peer, welcome) = bench.session(Vec::new()).await;
    assert_eq!(welcome.directive.tuning, None);
    let first = bench.tune(everybody("event"));
    peer.tuning(&everybody("event")).await;
    let second = bench.tune(alone(1, "busy"));
    let sum = everybody("event").then(alone(1, "busy"));
    let (_, tuning) = peer.tuning(&sum).await;
    drop(peer);
    // Nobody has answered: the next session of the same life is told, and its answer is for both.
    let (peer, welcome) = bench.session(Vec::new()).await;
    assert_eq!(welcome.directive.tuning.as_ref(), Some(&tuning));
    peer.answer_tuning(welcome.directive.epoch, tuning.number, "event")
        .await;
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    drop(peer);
    let (_peer, welcome) = bench.reborn(2).await;
    assert_eq!(welcome.directive.tuning, None);
}

pub(super) async fn an_order_that_nobody_can_carry_out_is_refused(bench: Bench) {
    let unknown = bench.coordinator.tune(MANAGER, everybody("busy")).await;
    assert!(matches!(unknown, Err(CoordinatorError::Store(_))));
    let (peer, _) = bench.session(Vec::new()).await;
    let beyond = bench.coordinator.tune(MANAGER, alone(2, "busy")).await;
    assert!(matches!(
        beyond,
        Err(CoordinatorError::NoSuchWorker { worker: 2, .. })
    ));
    peer.send(ToCoordinator::Goodbye).await;
    peer.is_over().await;
    // The coordinator lets go of a session a moment after the manager has heard its end.
    let deadline = std::time::Instant::now() + PATIENCE;
    while bench.coordinator.managers().await.unwrap()[0].connected {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let away = bench.coordinator.tune(MANAGER, everybody("busy")).await;
    assert!(matches!(away, Err(CoordinatorError::ManagerAway(MANAGER))));
}
