//! Addresses for what tasks left, signed here so that an end is answered while the coordinator is away.

use crate::protocol::WorkerTaskResp;
use crate::protocol::artifact::ArtifactKind;
use crate::protocol::report::TaskReport;
use crate::protocol::session::Welcome;
use crate::protocol::signed_url::{Access, Grant, UrlKey, absolute};

use uuid::Uuid;

use super::super::state::Now;
use super::Reactor;

/// How long an address is good: longer than any worker tries to upload.
const TERM_S: i64 = 3600;

/// What the newest welcome said about addresses.
#[derive(Debug)]
pub(super) struct Uploads {
    key: UrlKey,
    coordinator: String,
}

impl Uploads {
    /// Nothing when the coordinator is not served, so that nothing can be brought to it.
    pub(super) fn of(welcome: &Welcome) -> Option<Self> {
        if welcome.upload_key.is_empty() {
            return None;
        }
        Some(Self {
            key: UrlKey::new(&welcome.upload_key),
            coordinator: welcome.url.clone()?,
        })
    }

    /// Where the artifacts that a report names are to be brought by a worker of this manager.
    fn address(&self, manager: Uuid, report: &TaskReport, now: Now) -> Option<String> {
        let (_, result) = report.op.result()?;
        let kinds: Vec<ArtifactKind> = result.artifacts.iter().map(|one| one.kind).collect();
        if kinds.is_empty() {
            return None;
        }
        let address = self.key.address(&Grant {
            access: Access::Put,
            task: report.task_uuid,
            kinds,
            lease: report.lease,
            expires_s: now.wall_us / 1_000_000 + TERM_S,
            by: Some(manager),
        });
        Some(absolute(&self.coordinator, &address))
    }
}

impl Reactor {
    /// Where the artifacts that a report names are to be brought.
    pub(super) fn upload_url(&self, report: &TaskReport, now: Now) -> Option<String> {
        let uploads = self.uploads.as_ref()?;
        uploads.address(self.settings.manager, report, now)
    }

    /// Makes the addresses of a task's inputs whole: workers do not know the coordinator.
    pub(super) fn complete_links(&self, task: &mut WorkerTaskResp) {
        if let Some(uploads) = &self.uploads {
            for address in task.links.values_mut() {
                *address = absolute(&uploads.coordinator, address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::Reason;
    use crate::protocol::{Artifact, ControlState, Lease, ReportTaskOp, TaskResult, Try};

    const MANAGER: Uuid = Uuid::from_u128(3);

    fn welcome(url: Option<&str>, upload_key: Vec<u8>) -> Welcome {
        Welcome {
            version: 1,
            epoch: 1,
            lease_ms: 1,
            renew_ms: 1,
            drop: Vec::new(),
            directive: ControlState::default(),
            url: url.map(str::to_owned),
            upload_key,
        }
    }

    fn report(artifacts: Vec<Artifact>) -> TaskReport {
        TaskReport {
            seq: 1,
            task_id: 1,
            task_uuid: Uuid::from_u128(1),
            lease: Lease::new(1, 1),
            try_no: Try(1),
            op: ReportTaskOp::Failed(TaskResult {
                artifacts,
                ..TaskResult::not_started(Reason::Exit, "", 1)
            }),
        }
    }

    #[test]
    fn only_what_was_left_gets_an_address_and_only_of_a_coordinator_that_is_served() {
        let key = UrlKey::new(&[7; 32]).of_manager(MANAGER);
        let now = Now::read();
        let kind = ArtifactKind::Exec;
        let left = report(vec![Artifact {
            kind,
            size_bytes: 1,
            sha256: String::new(),
        }]);
        let uploads = Uploads::of(&welcome(Some("http://h:1"), key.clone())).unwrap();
        let address = uploads.address(MANAGER, &left, now).unwrap();
        assert!(
            address.starts_with("http://h:1/api/v1/artifacts/"),
            "{address}"
        );
        assert!(address.contains("/{kind}?kinds=exec&"), "{address}");
        assert_eq!(uploads.address(MANAGER, &report(Vec::new()), now), None);
        assert!(Uploads::of(&welcome(None, key)).is_none());
        assert!(Uploads::of(&welcome(Some("http://h:1"), Vec::new())).is_none());
    }
}
