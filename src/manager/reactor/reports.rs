//! Reports of workers: two fences, one answer each, nothing acknowledged before it is durable.

use std::time::Duration;

use mitosis_bridge::server::{Gate, Ring};

use crate::protocol::report::{ReportTaskOp, TaskReport};
use crate::protocol::session::LostTry;
use crate::protocol::{Incarnation, ReportTaskResp, Verdict};

use super::super::state::{Hand, Key, LeaseKey, Now, Stage, Wish};
use super::leases::result_age;
use super::{Action, Reactor, ReplyId, Waiting};

/// A task that workers handed back this often goes back to the coordinator: perhaps another machine can run it.
const RETURN_LIMIT: u32 = 3;

/// Where a report came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) incarnation: Incarnation,
    /// Last hand-over that the sender has received.
    pub(crate) confirms: Key,
    pub(crate) reply: ReplyId,
}

impl Reactor {
    /// A worker reports.
    pub(crate) fn report(&mut self, source: Source, report: TaskReport, now: Now) {
        self.confirm(source.incarnation, source.confirms, now);
        let Some(holder) = self.holders.get(&source.incarnation) else {
            return self.answer(source, report.seq, Verdict::NotOwner);
        };
        if holder.is_closed(report.seq) {
            return self.answer(source, report.seq, Verdict::Duplicate);
        }
        let lease = LeaseKey::of_report(&report);
        let Some(held) = self.held.get(&lease) else {
            // The answer to an earlier copy is still on its way, or the task is nobody's business here any more.
            let verdict = self.ledger.final_of(lease, report.try_no);
            return match verdict {
                Some(ticket) if report.op.is_final() => {
                    let url = self.upload_url(&report, now);
                    self.answer_final(ticket, source, (report.seq, Verdict::Duplicate), url);
                }
                _ => self.answer(source, report.seq, Verdict::Stale),
            };
        };
        match held.hand().copied() {
            Some(hand)
                if hand.incarnation == source.incarnation && hand.try_no == report.try_no =>
            {
                self.accept(lease, hand, source, report, now);
            }
            _ => self.answer(source, report.seq, Verdict::Stale),
        }
    }

    fn accept(
        &mut self,
        lease: LeaseKey,
        hand: Hand,
        source: Source,
        report: TaskReport,
        now: Now,
    ) {
        let seq = report.seq;
        let url = self.upload_url(&report, now);
        let held = self
            .held
            .get_mut(&lease)
            .expect("the fences were checked against it");
        let begun = matches!(held.stage, Stage::Running { .. });
        let attempt = held.attempt();
        match report.op {
            ReportTaskOp::Started { .. } if begun => {
                let ticket = self.next_ticket - 1;
                self.answer_when(ticket, source, seq, Verdict::Duplicate);
            }
            ReportTaskOp::Started { at_us } => {
                let took = start_latency(&held.stage, at_us, now);
                self.counts.executed();
                took.into_iter().for_each(|took| self.counts.started(took));
                held.stage = Stage::Running {
                    hand,
                    started_at_us: at_us,
                };
                let verdict = match held.wish {
                    Wish::Run | Wish::Release(_) => Verdict::Accepted,
                    Wish::Cancel { .. } => Verdict::Cancel,
                    Wish::Drop { .. } => return self.answer(source, seq, Verdict::Stale),
                };
                let ticket = self.commit(lease, ReportTaskOp::Started { at_us }, attempt, now);
                self.answer_when(ticket, source, seq, verdict);
                // Its start is told because it goes on for a while: others get what is in line behind it.
                self.revoke_from(source.incarnation);
            }
            // The coordinator gave the task to somebody else; whatever became of this execution does not count.
            _ if matches!(held.wish, Wish::Drop { .. }) => {
                self.forget(lease);
                self.answer(source, seq, Verdict::Stale);
            }
            ReportTaskOp::Released { reason } => {
                let ticket = self.returned(lease, &reason, now);
                self.answer_when(ticket, source, seq, Verdict::Accepted);
            }
            mut op => {
                op.set_handed_over(hand.at_us);
                let started_at_us = op.result().and_then(|(_, result)| result.started_at_us);
                let started = started_at_us.is_some();
                if let Some(at_us) = started_at_us
                    && !begun
                {
                    // A short task's start and end come in one report.
                    let took = start_latency(&held.stage, at_us, now);
                    self.counts.executed();
                    took.into_iter().for_each(|took| self.counts.started(took));
                }
                if let Some((_, result)) = op.result() {
                    self.counts.reported(result_age(result, now));
                }
                self.learn(lease, &op);
                let attempt = if begun || started { attempt } else { 0 };
                let ticket = self.end(lease, op, attempt, now);
                self.answer_final(ticket, source, (seq, Verdict::Accepted), url);
            }
        }
    }

    /// Notes how long an execution took.
    fn learn(&mut self, lease: LeaseKey, op: &ReportTaskOp) {
        let Some((_, result)) = op.result() else {
            return;
        };
        if let (true, Some(held)) = (result.started_at_us.is_some(), self.held.get(&lease)) {
            let took = Duration::from_micros(result.wall_us().max(0).unsigned_abs());
            let task = &held.task;
            self.durations.learn(task.suite_uuid, &task.spec, took);
        }
    }

    /// A worker hands a task back without an end. Returns the number of what was spooled for it.
    fn returned(&mut self, lease: LeaseKey, reason: &str, now: Now) -> u64 {
        let held = self
            .held
            .get_mut(&lease)
            .expect("the fences were checked against it");
        let attempt = held.attempt();
        let cause = match &self.draining {
            Some(why) => format!("{why}; {reason}"),
            None => reason.to_owned(),
        };
        let mut begun = None;
        if let Stage::Running {
            hand,
            started_at_us,
        } = held.stage
        {
            begun = Some((attempt, started_at_us));
            held.lost.push(LostTry {
                try_no: hand.try_no,
                attempt,
                started_at_us,
                ended_at_us: Some(now.wall_us),
                cause,
            });
        }
        // Not the task's fault, nor the worker's.
        held.returned += u32::from(!self.halted && self.gate == Gate::Open);
        if matches!(held.wish, Wish::Cancel { .. }) {
            // The execution that was ended is the one this report is about, not a lost one.
            if begun.is_some() {
                held.lost.pop();
            }
            return self.end_cancelled(lease, reason, begun, now);
        }
        if held.returned > RETURN_LIMIT || matches!(held.wish, Wish::Release(_)) {
            let reason = reason.to_owned();
            return self.end(lease, ReportTaskOp::Released { reason }, 0, now);
        }
        let hand = *held.hand().expect("the fences were checked against it");
        self.let_go(lease, hand.key, hand.incarnation);
        self.again(lease, reason, now)
    }

    /// Answers at once: nothing of this report needs to be durable.
    fn answer(&mut self, source: Source, seq: u64, verdict: Verdict) {
        self.counts.verdict(&verdict);
        let holder = self.holders.get_mut(&source.incarnation);
        let acked_through = holder.map_or(0, |holder| holder.close(seq));
        self.actions.push(Action::Reply {
            to: source.reply,
            response: ReportTaskResp::of(verdict, acked_through),
            ring: Ring::Now,
        });
    }

    /// Answers once the record with this number is durable.
    fn answer_when(&mut self, ticket: u64, source: Source, seq: u64, verdict: Verdict) {
        self.answer_final(ticket, source, (seq, verdict), None);
    }

    /// The same for a final report, which may have something to upload.
    fn answer_final(
        &mut self,
        ticket: u64,
        source: Source,
        (seq, verdict): (u64, Verdict),
        url: Option<String>,
    ) {
        self.waiting.push_back(Waiting {
            ticket,
            to: source.reply,
            incarnation: source.incarnation,
            seq,
            verdict,
            url,
        });
        if ticket <= self.durable || self.gives_up_keeping() {
            self.answer_waiting();
        }
    }

    fn gives_up_keeping(&self) -> bool {
        self.unwritable && self.draining.is_some()
    }

    /// The spool has written everything up to this number.
    pub(crate) fn spooled(&mut self, through: u64) {
        self.durable = self.durable.max(through);
        self.ledger.durable_through(through);
        while let Some((ticket, lease)) = self.recording.front().copied()
            && ticket <= through
        {
            self.recording.pop_front();
            let held = self.held.get_mut(&lease).expect("a recorded lease is held");
            held.stage = Stage::Buffered;
            self.buffer.push_front(lease);
        }
        self.answer_waiting();
    }

    pub(super) fn answer_waiting(&mut self) {
        let all = self.gives_up_keeping();
        while let Some(first) = self.waiting.front()
            && (all || first.ticket <= self.durable)
        {
            let Waiting {
                to,
                incarnation,
                seq,
                verdict,
                url,
                ..
            } = self.waiting.pop_front().expect("there is a first");
            self.counts.verdict(&verdict);
            // A cancel has to be heard now, and files are waiting; an acknowledgement can wait for the next wake-up.
            let ring = if verdict == Verdict::Cancel || url.is_some() {
                Ring::Now
            } else {
                Ring::Lazy
            };
            let holder = self.holders.get_mut(&incarnation);
            let acked_through = holder.map_or(0, |holder| holder.close(seq));
            let response = ReportTaskResp {
                url,
                ..ReportTaskResp::of(verdict, acked_through)
            };
            self.actions.push(Action::Reply { to, response, ring });
        }
    }
}

/// From the hand-over until the spawn call returned. The worker's stamp is wall time of the same machine; a clock that was
/// set meanwhile makes it 0, or the whole time until now.
fn start_latency(stage: &Stage, started_at_us: i64, now: Now) -> Option<Duration> {
    let Stage::Handed { at, .. } = stage else {
        return None;
    };
    let since_hand_over = now.mono.saturating_duration_since(*at);
    let since_start_us = now
        .wall_us
        .saturating_sub(started_at_us)
        .max(0)
        .unsigned_abs();
    Some(since_hand_over.saturating_sub(Duration::from_micros(since_start_us)))
}
