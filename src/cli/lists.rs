//! `suites`, `managers`, `workers`: lists of what a service knows.

use clap::Args;

use super::failure::Failure;
use super::format::{FormatArgs, MANAGER_COLUMNS, SUITE_COLUMNS, WORKER_COLUMNS};
use super::output;
use super::reach::{Reach, ReachArgs, refused};
use super::show;
use crate::exit_code::Exit;
use crate::protocol::api::{ManagerList, PageQuery, WorkerList};
use crate::wall_clock::unix_us;

/// List suites with their tasks by state, oldest first. A task that was repeated counts by its newest repetition.
#[derive(Debug, Args)]
pub(super) struct SuitesArgs {
    /// Most suites to show.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on where the last page ended.
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

impl SuitesArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let service = Reach::to_act(&self.reach).await?;
        let query = PageQuery {
            cursor: self.cursor,
            limit: Some(self.limit),
            named: None,
        };
        let page = service.client().suites(&query).await.map_err(refused)?;
        self.format.write(&page, &page.suites, &SUITE_COLUMNS, || {
            show::suites(&page.suites, unix_us())
        })?;
        if let Some(cursor) = page.next_cursor {
            output::note(&format!(
                "there are more: add --cursor {cursor}, or a larger --limit"
            ));
        }
        Ok(Exit::Ok)
    }
}

/// List managers.
#[derive(Debug, Args)]
pub(super) struct ManagersArgs {
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

impl ManagersArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let service = Reach::to_act(&self.reach).await?;
        let managers = service.client().managers().await.map_err(refused)?;
        let list = ManagerList { managers };
        self.format
            .write(&list, &list.managers, &MANAGER_COLUMNS, || {
                show::managers(&list.managers, unix_us())
            })?;
        Ok(Exit::Ok)
    }
}

/// List independent workers.
#[derive(Debug, Args)]
pub(super) struct WorkersArgs {
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

impl WorkersArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let service = Reach::to_act(&self.reach).await?;
        let workers = service.client().workers().await.map_err(refused)?;
        let list = WorkerList { workers };
        self.format
            .write(&list, &list.workers, &WORKER_COLUMNS, || {
                show::workers(&list.workers, unix_us())
            })?;
        Ok(Exit::Ok)
    }
}
