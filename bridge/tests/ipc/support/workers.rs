//! Worker processes of a fixture: started, served, sent home, killed.

use mitosis_bridge::{Ring, ServerEvent};
use rustix::process::Signal;

use super::child::Process;
use super::fixture::Fixture;
use super::wait::within;

impl Fixture {
    pub(crate) async fn spawn(&self, local_id: u8, role: &str) -> Process {
        let invitation = self.invite(local_id).await;
        Process::spawn(role, self.expected(local_id), invitation)
    }

    /// Starts one worker and takes its `Joined`.
    pub(crate) async fn start(&mut self, local_id: u8, role: &str) -> Process {
        let process = self.spawn(local_id, role).await;
        let joined = self.event().await;
        assert!(matches!(joined, ServerEvent::Joined { .. }), "{joined:?}");
        process
    }

    /// Answers reports with their payload until the condition holds; returns every event, reports without their token.
    pub(crate) async fn serve_until(&mut self, mut done: impl FnMut(&ServerEvent) -> bool) {
        loop {
            let event = self.event().await;
            let last = done(&event);
            if let ServerEvent::Report { payload, reply, .. } = event {
                reply.reply(payload, Ring::Lazy);
            }
            if last {
                return;
            }
        }
    }

    /// Lets every worker leave by a drain and retires it.
    pub(crate) async fn send_home(&mut self, processes: &mut [Process]) {
        within(self.handle.drain_fetches()).await.unwrap();
        for process in processes.iter_mut() {
            process.ends_well().await;
            within(self.handle.retire(process.incarnation))
                .await
                .unwrap();
        }
        let mut left = 0;
        while left < processes.len() {
            self.serve_until(|event| matches!(event, ServerEvent::Left { .. }))
                .await;
            left += 1;
        }
    }

    /// Kills a worker, sees its end and retires it.
    pub(crate) async fn kill(&mut self, process: &mut Process) {
        process.signal(Signal::KILL);
        process.was_killed().await;
        within(self.handle.retire(process.incarnation))
            .await
            .unwrap();
    }
}
