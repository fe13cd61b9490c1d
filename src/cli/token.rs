//! `token`: a token for somebody else.

use anyhow::anyhow;
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::failure::Failure;
use super::output;
use super::reach::{Reach, ReachArgs, refused};
use crate::client::ApiClient;
use crate::coordinator::auth::{Scope, TOKEN_TTL};
use crate::exit_code::Exit;
use crate::protocol::HumanDuration;
use crate::protocol::api::IssueTokenRequest;

/// Longest life of a token: a forgotten one ends some day.
const LONGEST_TTL: HumanDuration = HumanDuration(std::time::Duration::from_secs(366 * 24 * 3600));

const HELP: &str = "\
Scopes: admin (everything), user (tasks and suites), manager (a manager's session), worker (one independent worker: a
new one, or worker:UUID). The token is the only line of stdout; whoever has it may do what its scope allows.

Examples:
  mitosis token --scope manager --subject node-7 > node-7.token && chmod 600 node-7.token
  MITOSIS_TOKEN=$(mitosis token --scope worker) mitosis worker --coordinator-url http://head:7300";

/// Issue a token.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct TokenArgs {
    /// What it allows: admin, user, manager, worker or worker:UUID.
    #[arg(long, value_name = "SCOPE", default_value = "user", value_parser = scope)]
    scope: Scope,
    /// Whom it is for, as logs show it.
    #[arg(long, value_name = "NAME", default_value = "command line")]
    subject: String,
    /// How long it lasts [default: 7days].
    #[arg(long, value_name = "DURATION")]
    ttl: Option<HumanDuration>,
    /// One JSON object with `token` and `scope` on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

/// A worker that nobody knows yet gets its name here.
fn scope(text: &str) -> Result<Scope, String> {
    match text {
        "worker" => Ok(Scope::Worker(Uuid::new_v4())),
        text => text
            .parse()
            .map_err(|error: crate::coordinator::auth::ParseScopeError| error.to_string()),
    }
}

impl TokenArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        if self
            .ttl
            .is_some_and(|ttl| ttl.0.is_zero() || ttl > LONGEST_TTL)
        {
            return Err(Failure::usage(anyhow!(
                "--ttl is a positive duration of at most a year"
            )));
        }
        let reach = Reach::to_read(&self.reach).await?;
        let token = self.issue(&reach).await;
        reach.close().await;
        let token = token?;
        let token = token.expose_secret();
        if self.json {
            output::json(&serde_json::json!({"token": token, "scope": self.scope.to_string()}))?;
        } else {
            output::text(&format!("{token}\n"))?;
        }
        Ok(Exit::Ok)
    }

    async fn issue(&self, reach: &Reach) -> Result<SecretString, Failure> {
        match reach {
            Reach::Service(service) => self.ask(service.client()).await,
            Reach::Store(coordinator) => {
                let ttl = self.ttl.map_or(TOKEN_TTL, |ttl| ttl.0);
                Ok(coordinator
                    .authority()
                    .issue(self.scope, &self.subject, ttl))
            }
        }
    }

    async fn ask(&self, client: &ApiClient) -> Result<SecretString, Failure> {
        let request = IssueTokenRequest {
            scope: self.scope.to_string(),
            subject: self.subject.clone(),
            ttl: self.ttl,
        };
        client.issue_token(&request).await.map_err(refused)
    }
}
