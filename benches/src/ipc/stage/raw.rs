//! The bare transport: one thread that owns the server port and spins, sleeps or is parked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::ipc::raw::{RawConfig, RawError, RawServer, Waiting};
use async_trait::async_trait;
use mitosis_bridge::TransportRoot;
use tokio::sync::oneshot;

use super::{Setting, Stage, Team};
use crate::error::{BenchError, io, part};
use crate::ipc::case::{Case, Route};
use crate::ipc::placement::Placement;
use crate::ipc::wire::Target;

const PARKED: u8 = 0;
const SERVING: u8 = 1;
const STOPPED: u8 = 2;
/// Longest sleep of a sleeping server: it looks for orders then.
const SLEEP: Duration = Duration::from_millis(100);
/// Turns of a spinning server between two looks for orders.
const SPINS: u32 = 256;

pub(super) struct RawStage {
    team: Team,
    orders: Arc<AtomicU8>,
    /// `None` once it was told to stop.
    server: Option<JoinHandle<Result<(), RawError>>>,
}

impl RawStage {
    pub(super) async fn open(setting: Setting, placement: Placement) -> Result<Self, BenchError> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let instance = unique[..8].to_owned();
        let asleep = setting.path == Route::RawAsleep;
        let config = RawConfig {
            root: TransportRoot::for_instance(&instance).map_err(part("name the root"))?,
            clients: setting.clients,
            payload_bytes: setting.payload_bytes,
            waiting: if asleep {
                Waiting::Sleep
            } else {
                Waiting::Spin
            },
        };
        let orders = Arc::new(AtomicU8::new(PARKED));
        let (ready_tx, ready_rx) = oneshot::channel();
        let on_thread = Arc::clone(&orders);
        let server = std::thread::Builder::new()
            .name("bench-raw".to_owned())
            .spawn(move || {
                let opened = RawServer::open(&config);
                let server = match opened {
                    Ok(server) => server,
                    Err(error) => {
                        // The opener waits for it.
                        let _ = ready_tx.send(Err(error));
                        return Ok(());
                    }
                };
                let _ = ready_tx.send(Ok(()));
                let turns = if asleep { 1 } else { SPINS };
                let served = serve(&server, turns, &on_thread);
                server.close().and(served)
            })
            .map_err(io("start a server thread"))?;
        let opened = ready_rx.await.map_err(part("open the raw server"))?;
        opened.map_err(part("open the raw server"))?;
        let target = |first, count| Target::Raw {
            instance: instance.clone(),
            clients: setting.clients,
            payload_bytes: setting.payload_bytes,
            asleep,
            first,
            count,
        };
        let mut stage = Self {
            team: Team::default(),
            orders,
            server: Some(server),
        };
        stage.team = Team::connect(setting, placement, target).await?;
        Ok(stage)
    }

    fn order(&self, order: u8) {
        self.orders.store(order, Ordering::Release);
        if let Some(server) = &self.server {
            server.thread().unpark();
        }
    }

    /// Bounded: the thread looks for orders between two sleeps.
    fn stop(&mut self) -> Result<(), BenchError> {
        self.order(STOPPED);
        let joined = self.server.take().map(JoinHandle::join);
        match joined {
            Some(Ok(served)) => served.map_err(part("serve the raw transport")),
            // A panic has been printed.
            Some(Err(_)) => Err(BenchError::NothingToMeasure(
                "the raw server has ended".to_owned(),
            )),
            None => Ok(()),
        }
    }
}

impl Drop for RawStage {
    fn drop(&mut self) {
        // The root goes with its server, also when a measurement is given up.
        let _ = self.stop();
    }
}

/// `turns` between two looks for orders.
fn serve(server: &RawServer, turns: u32, orders: &AtomicU8) -> Result<(), RawError> {
    loop {
        match orders.load(Ordering::Acquire) {
            PARKED => std::thread::park(),
            SERVING => {
                for _ in 0..turns {
                    if server.answer()? == 0 {
                        server.sleep(SLEEP)?;
                        std::hint::spin_loop();
                    }
                }
            }
            _ => return Ok(()),
        }
    }
}

#[async_trait]
impl Stage for RawStage {
    fn team(&mut self) -> &mut Team {
        &mut self.team
    }

    async fn begin(&mut self, _case: &Case, _active: usize) -> Result<(), BenchError> {
        self.order(SERVING);
        Ok(())
    }

    async fn rest(&mut self) -> Result<(), BenchError> {
        self.order(PARKED);
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<(), BenchError> {
        let left = self.team.leave().await;
        let stopped = tokio::task::block_in_place(|| self.stop());
        left.and(stopped)
    }
}
