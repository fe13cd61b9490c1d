//! Long-lived roles of a test: `up`, or coordinator and manager apart, each on a state directory of its own.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::program::{Finished, Running};
use super::sandbox::Sandbox;
use super::tasks::{self, Task};
use super::wait;

/// A coordinator that can be asked, alone or together with a manager (`up`).
#[derive(Debug)]
pub(crate) struct Service<'s> {
    sandbox: &'s Sandbox,
    options: Vec<String>,
    pub(crate) program: Running<'s>,
    pub(crate) state_dir: PathBuf,
    pub(crate) url: String,
}

impl<'s> Service<'s> {
    /// Starts `mitosis up` with some workers.
    #[track_caller]
    pub(crate) fn up(sandbox: &'s Sandbox, workers: u16) -> Self {
        Self::start(sandbox, &["up", "--workers", &workers.to_string()])
    }

    /// Starts `mitosis coordinator`.
    #[track_caller]
    pub(crate) fn coordinator(sandbox: &'s Sandbox) -> Self {
        Self::start(sandbox, &["coordinator"])
    }

    /// Starts a role with options; the state directory has the role's name.
    #[track_caller]
    pub(crate) fn start(sandbox: &'s Sandbox, options: &[&str]) -> Self {
        let state_dir = sandbox.path(options[0]);
        let options = options.iter().map(|word| (*word).to_owned()).collect();
        Self::start_on(sandbox, options, state_dir, "127.0.0.1:0")
    }

    #[track_caller]
    fn start_on(
        sandbox: &'s Sandbox,
        options: Vec<String>,
        state_dir: PathBuf,
        listen: &str,
    ) -> Self {
        let mut command = sandbox.command(&options);
        command
            .args(["--listen", listen, "--state-dir"])
            .arg(&state_dir);
        let mut program = Running::start(sandbox, command);
        let url = program.address();
        Self {
            sandbox,
            options,
            program,
            state_dir,
            url,
        }
    }

    /// Kills the process and starts it again on the same address and state.
    #[track_caller]
    pub(crate) fn kill_and_restart(self) -> Self {
        self.kill().restart()
    }

    /// Kills the process and nothing else.
    #[track_caller]
    pub(crate) fn kill(self) -> Killed<'s> {
        let (killed, program) = self.into_killed();
        program.kill();
        killed
    }

    /// Kills the process, which may be ending by itself already.
    #[track_caller]
    pub(crate) fn kill_or_ended(self) -> Killed<'s> {
        self.sandbox.note_instances();
        self.program.signal(Signal::KILL);
        self.ended().1
    }

    /// Waits for its end, however it ends.
    #[track_caller]
    pub(crate) fn ended(self) -> (Finished, Killed<'s>) {
        let (killed, program) = self.into_killed();
        (program.finish(), killed)
    }

    fn into_killed(self) -> (Killed<'s>, Running<'s>) {
        let address = self.url.trim_start_matches("http://").trim_end_matches('/');
        let killed = Killed {
            sandbox: self.sandbox,
            options: self.options,
            state_dir: self.state_dir,
            listen: address.to_owned(),
        };
        (killed, self.program)
    }

    /// Asks it to end.
    #[track_caller]
    pub(crate) fn stop(self) -> Finished {
        self.program.stop()
    }

    /// Calls a client command that finds the service through its state directory.
    #[track_caller]
    pub(crate) fn client(&self, args: &[&str]) -> Finished {
        self.begin(args).finish()
    }

    /// The same for a command that takes its time.
    #[track_caller]
    pub(crate) fn begin(&self, args: &[&str]) -> Running<'s> {
        let (command, rest) = args.split_first().expect("a sub-command");
        let mut call = vec![*command, "--state-dir", self.dir()];
        call.extend(rest);
        self.sandbox.start(call)
    }

    fn dir(&self) -> &str {
        self.state_dir.to_str().expect("a path in UTF-8")
    }

    /// Submits one shell line and returns the task's uuid.
    #[track_caller]
    pub(crate) fn submit(&self, line: &str) -> String {
        let submitted = self.client(&["submit", "--quiet", "--", "sh", "-c", line]);
        submitted.code(0).out().trim().to_owned()
    }

    /// Submits a file of tasks and returns their uuids.
    #[track_caller]
    pub(crate) fn submit_file(&self, file: &Path) -> Vec<String> {
        let file = file.to_str().expect("a path in UTF-8");
        let submitted = self.client(&["submit", "--quiet", file]).code(0);
        submitted.out().lines().map(str::to_owned).collect()
    }

    /// All tasks.
    #[track_caller]
    pub(crate) fn tasks(&self) -> Vec<Task> {
        tasks::list(self.sandbox, &self.state_dir)
    }

    /// Everything about one task.
    #[track_caller]
    pub(crate) fn task(&self, uuid: &str) -> Task {
        tasks::show(self.sandbox, &self.state_dir, uuid)
    }

    /// Waits until one task is in a state.
    #[track_caller]
    pub(crate) fn until_state(&self, uuid: &str, state: &str) -> Task {
        wait::until(&format!("task {uuid} to be {state}"), wait::LONG, || {
            let task = self.task(uuid);
            if task.state() == state {
                return Ok(task);
            }
            Err(format!("{:#}", task.0))
        })
    }

    /// Waits until every task has ended.
    #[track_caller]
    pub(crate) fn until_all_ended(&self) -> Vec<Task> {
        wait::until("every task to end", wait::VERY_LONG, || {
            let tasks = self.tasks();
            if tasks.iter().all(Task::is_terminal) {
                return Ok(tasks);
            }
            Err(format!("{:?}", tasks::counts(&tasks)))
        })
    }

    /// Starts a manager of this coordinator.
    #[track_caller]
    pub(crate) fn manager(&self, workers: u16, more: &[&str]) -> Running<'s> {
        self.manager_on("manager", workers, more)
    }

    /// Starts a manager of this coordinator on a state directory of this name.
    #[track_caller]
    pub(crate) fn manager_on(&self, name: &str, workers: u16, more: &[&str]) -> Running<'s> {
        let mut command = self
            .sandbox
            .command(["manager", "--coordinator-url", &self.url]);
        command
            .args(["--workers", &workers.to_string(), "--state-dir"])
            .arg(self.sandbox.path(name))
            .args(more)
            .env("MITOSIS_TOKEN", self.token("manager"));
        Running::start(self.sandbox, command)
    }

    /// Starts an independent worker of this coordinator.
    #[track_caller]
    pub(crate) fn worker(&self) -> Running<'s> {
        let mut command = self
            .sandbox
            .command(["worker", "--coordinator-url", &self.url]);
        command.env("MITOSIS_TOKEN", self.token("worker"));
        Running::start(self.sandbox, command)
    }

    /// Everything it exports for Prometheus.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.url.trim_end_matches('/'));
        get(&url, &self.token("admin")).expect("an answer")
    }

    /// Scrapes again and again with one token.
    #[track_caller]
    pub(crate) fn metrics_often(&self, times: u64) {
        let url = format!("{}/metrics", self.url.trim_end_matches('/'));
        let token = self.token("user");
        for _ in 0..times {
            get(&url, &token).expect("an answer");
        }
    }

    /// Submits one and the same body of the API again and again; without a suite in it, every call makes one.
    #[track_caller]
    pub(crate) fn submit_often(&self, body: &str, times: usize) {
        let url = format!("{}/api/v1/tasks", self.url.trim_end_matches('/'));
        let token = self.token("user");
        in_client(async |client| {
            for _ in 0..times {
                let request = client.post(&url).bearer_auth(&token);
                let request = request.header("content-type", "application/json");
                let answer = request.body(body.to_owned()).send().await;
                let answer = answer.expect("an answer");
                assert!(answer.status().is_success(), "{answer:?}");
            }
        });
    }

    /// Asks for the same without a token, which is refused.
    #[track_caller]
    pub(crate) fn metrics_without_token(&self) {
        let url = format!("{}/metrics", self.url.trim_end_matches('/'));
        let refusal = get(&url, "").expect("an answer");
        assert!(!refusal.contains("mitosis_build_info"), "{refusal}");
    }

    /// A token of a scope.
    #[track_caller]
    pub(crate) fn token(&self, scope: &str) -> String {
        let issued = self.client(&["token", "--scope", scope]);
        issued.code(0).out().trim().to_owned()
    }
}

/// One GET with a token; `None` when nobody answers.
#[track_caller]
pub(crate) fn get(url: &str, token: &str) -> Option<String> {
    in_client(async |client| {
        let answer = client.get(url).bearer_auth(token).send().await;
        answer.ok()?.text().await.ok()
    })
}

/// Does something with an HTTP client.
fn in_client<T>(work: impl AsyncFnOnce(reqwest::Client) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        // Fails when it is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        work(reqwest::Client::builder().build().expect("a client")).await
    })
}

/// A service between two of its lives.
#[derive(Debug)]
pub(crate) struct Killed<'s> {
    sandbox: &'s Sandbox,
    options: Vec<String>,
    state_dir: PathBuf,
    listen: String,
}

impl<'s> Killed<'s> {
    /// Starts it again on the same address and state.
    #[track_caller]
    pub(crate) fn restart(self) -> Service<'s> {
        Service::start_on(self.sandbox, self.options, self.state_dir, &self.listen)
    }

    /// Starts it again on the same state and another address.
    #[track_caller]
    pub(crate) fn restart_elsewhere(self) -> Service<'s> {
        Service::start_on(self.sandbox, self.options, self.state_dir, "127.0.0.1:0")
    }
}
