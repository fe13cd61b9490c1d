//! The manager's orders to the bridge, in order and one after the other, without making the loop wait.
//!
//! Owned and polled by the loop. The queue needs no bound of its own: it holds at most an order per lease in the buffer
//! and the few that concern everybody. Consecutive preparations travel together, so that they wake the poller once.
//! Invitations and retirements do not go through here: they belong to single workers ([`super::worker_process`]).

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::Bytes;
use mitosis_bridge::{
    Batching, BridgeError, Gate, Incarnation, PreparedReply, ServerHandle, Wake, Withdrawal,
};

use crate::error_chain::error_chain;
use crate::protocol::ControlState;
use crate::protocol::frame::{FetchTaskResponse, encode};

use super::reactor::Preparation;
use super::state::Key;

/// Preparations that travel together.
const TOGETHER: usize = 256;

/// One order.
#[derive(Debug)]
pub(super) enum Order {
    Prepare(Preparation),
    Withdraw(Vec<Key>),
    SetGate(Gate),
    Publish(ControlState, Wake),
    Finish(Incarnation),
    DrainFetches,
}

/// What came of it. Orders that simply succeed have no answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// These preparations will never succeed, for these reasons.
    Unpreparable(Vec<(Key, String)>),
    Withdrawn(Vec<(Key, Withdrawal)>),
    /// The gate is in force.
    GateSet(Gate),
    /// The poller has ended.
    Closed,
}

type Performing = Pin<Box<dyn Future<Output = Option<Answer>> + Send>>;

/// The queue and the order that is being carried out.
pub(super) struct Commander {
    server: ServerHandle,
    orders: VecDeque<Order>,
    performing: Option<Performing>,
}

impl std::fmt::Debug for Commander {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commander")
            .field("orders", &self.orders)
            .finish_non_exhaustive()
    }
}

impl Commander {
    pub(super) fn new(server: ServerHandle) -> Self {
        Self {
            server,
            orders: VecDeque::new(),
            performing: None,
        }
    }

    /// Queues an order.
    pub(super) fn order(&mut self, order: Order) {
        // Of two states in a row only the newer one matters, but everybody who was to hear of either is woken.
        if let Order::Publish(state, wake) = &order
            && let Some(Order::Publish(queued, woken)) = self.orders.back_mut()
        {
            *queued = state.clone();
            match (&mut *woken, wake) {
                (Wake::Only(these), Wake::Only(more)) => these.extend(more),
                _ => *woken = Wake::All,
            }
            return;
        }
        self.orders.push_back(order);
    }

    /// Carries out orders until one has an answer. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Answer {
        loop {
            if self.performing.is_none() {
                self.performing = self.start();
            }
            let Some(performing) = &mut self.performing else {
                return std::future::pending().await;
            };
            let answer = performing.await;
            self.performing = None;
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    fn start(&mut self) -> Option<Performing> {
        let server = self.server.clone();
        Some(match self.orders.pop_front()? {
            Order::Prepare(first) => {
                let mut together = vec![first];
                while together.len() < TOGETHER
                    && let Some(Order::Prepare(_)) = self.orders.front()
                    && let Some(Order::Prepare(next)) = self.orders.pop_front()
                {
                    together.push(next);
                }
                Box::pin(prepare(server, together))
            }
            Order::Withdraw(keys) => Box::pin(async move {
                Some(
                    server
                        .withdraw(keys)
                        .await
                        .map_or(Answer::Closed, Answer::Withdrawn),
                )
            }),
            Order::SetGate(gate) => Box::pin(async move {
                let set = server.set_gate(gate).await;
                Some(set.map_or(Answer::Closed, |()| Answer::GateSet(gate)))
            }),
            Order::Publish(state, wake) => Box::pin(async move {
                let state = Bytes::from(encode(&state));
                failed(
                    "publish the control state",
                    server.publish_control(state, wake).await,
                )
            }),
            Order::Finish(incarnation) => Box::pin(async move {
                match server.finish(incarnation).await {
                    // It died meanwhile, and with it ended what it occupied.
                    Err(BridgeError::UnknownIncarnation(_)) => None,
                    other => failed("free what a task occupied", other),
                }
            }),
            Order::DrainFetches => {
                Box::pin(
                    async move { failed("send idle workers home", server.drain_fetches().await) },
                )
            }
        })
    }
}

async fn prepare(server: ServerHandle, together: Vec<Preparation>) -> Option<Answer> {
    let replies = together.into_iter().map(reply).collect();
    match server.prepare_all(replies).await {
        Ok(refused) if refused.is_empty() => None,
        Ok(refused) => {
            let told = |(key, error)| (key, error_chain(&error));
            Some(Answer::Unpreparable(
                refused.into_iter().map(told).collect(),
            ))
        }
        Err(_) => Some(Answer::Closed),
    }
}

fn reply(preparation: Preparation) -> PreparedReply {
    let Preparation {
        key,
        cost,
        not_after,
        batching,
        task,
    } = preparation;
    let frame = match batching {
        Batching::Alone => FetchTaskResponse::Alone(task),
        Batching::Expected(_) => FetchTaskResponse::Task(task),
    };
    PreparedReply {
        key,
        cost,
        not_after,
        batching,
        payload: Bytes::from(encode(&frame)),
    }
}

/// An order that failed for a passing reason is repeated by nobody: the next control state says everything again.
fn failed(operation: &'static str, outcome: Result<(), BridgeError>) -> Option<Answer> {
    match outcome {
        Ok(()) => None,
        Err(BridgeError::Closed) => Some(Answer::Closed),
        Err(error) => {
            tracing::error!(error = error_chain(&error), "cannot {operation}");
            None
        }
    }
}
