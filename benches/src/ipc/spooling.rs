//! The async side behind reports: decode, write to a real spool, answer when it is written.
//!
//! It is what a manager's loop does with a report and nothing else of it. The spool is the manager's own, with durability
//! `process`; commits of the coordinator are stood in for by records that close the oldest reports.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use mitosis_bridge::{ReplyToken, Ring, ServerEvent, ServerEvents};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::{BenchError, part};
use crate::scratch::Scratch;
use mitosis::manager::Durability;
use mitosis::manager::spool::{Record, Spool};
use mitosis::protocol::frame::{decode, encode};
use mitosis::protocol::session::Commit;
use mitosis::protocol::{ReportTaskResp, TaskReport, Verdict};

/// Events of one turn, as in the manager's loop.
const BATCH: usize = 256;
/// Answered reports that are closed together.
const CLOSED_TOGETHER: usize = 256;

/// A running answerer; [`Self::stop`] gives the events back.
pub(super) struct Spooling {
    stop_tx: oneshot::Sender<()>,
    running: JoinHandle<Result<ServerEvents, BenchError>>,
}

impl Spooling {
    pub(super) fn start(events: ServerEvents) -> Result<Self, BenchError> {
        let scratch = Scratch::new()?;
        let opened = Spool::open(
            &scratch.path().join("spool"),
            Durability::Process,
            Default::default(),
        );
        let (spool, recovered) = opened.map_err(part("open a spool"))?;
        let answerer = Answerer {
            events,
            spool,
            last_ticket: recovered.next_ticket - 1,
            last_seq: 0,
            waiting: VecDeque::new(),
            answered: Vec::new(),
        };
        let (stop_tx, stop_rx) = oneshot::channel();
        let running = tokio::spawn(async move {
            let events = answerer.run(stop_rx).await;
            drop(scratch);
            events
        });
        Ok(Self { stop_tx, running })
    }

    pub(super) async fn stop(self) -> Result<ServerEvents, BenchError> {
        // An answerer that has failed says why below.
        let _ = self.stop_tx.send(());
        self.running.await.map_err(part("answer reports"))?
    }
}

/// A report that is not durable yet.
struct Waiting {
    ticket: u64,
    seq: u64,
    acked: u64,
    reply: ReplyToken,
}

struct Answerer {
    events: ServerEvents,
    spool: Spool,
    last_ticket: u64,
    /// The spool numbers reports of all clients itself.
    last_seq: u64,
    waiting: VecDeque<Waiting>,
    answered: Vec<u64>,
}

impl Answerer {
    async fn run(mut self, mut stop_rx: oneshot::Receiver<()>) -> Result<ServerEvents, BenchError> {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = &mut stop_rx => break,
                heard = self.events.recv_batch(&mut batch, BATCH) => {
                    if heard == 0 {
                        return Err(BenchError::NothingToMeasure("the bridge has closed".to_owned()));
                    }
                    for event in batch.drain(..) {
                        self.hear(event)?;
                    }
                    self.spool.flush();
                }
                progress = self.spool.progress() => self.answer(progress.written),
            }
        }
        self.spool.close().await;
        Ok(self.events)
    }

    fn hear(&mut self, event: ServerEvent) -> Result<(), BenchError> {
        let ServerEvent::Report { payload, reply, .. } = event else {
            return Ok(());
        };
        let decoded = decode::<TaskReport>("report", &payload);
        let mut report = decoded.map_err(part("read a report"))?;
        let acked = report.seq;
        self.last_seq += 1;
        report.seq = self.last_seq;
        let commit = Commit {
            report,
            attempt: 1,
            lost_tries: Vec::new(),
        };
        self.append(Record::Report(Arc::new(commit)));
        self.waiting.push_back(Waiting {
            ticket: self.last_ticket,
            seq: self.last_seq,
            acked,
            reply,
        });
        if self.answered.len() >= CLOSED_TOGETHER {
            let seqs = std::mem::take(&mut self.answered);
            self.append(Record::Committed { seqs });
        }
        Ok(())
    }

    fn append(&mut self, record: Record) {
        self.last_ticket += 1;
        self.spool.append(record);
    }

    fn answer(&mut self, written: u64) {
        while self
            .waiting
            .front()
            .is_some_and(|first| first.ticket <= written)
            && let Some(first) = self.waiting.pop_front()
        {
            let answer = encode(&ReportTaskResp::of(Verdict::Accepted, first.acked));
            // Somebody waits for it, so it rings.
            first.reply.reply(Bytes::from(answer), Ring::Now);
            self.answered.push(first.seq);
        }
    }
}
