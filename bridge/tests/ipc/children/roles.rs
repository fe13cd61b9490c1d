//! What the worker processes of the tests do.

use std::time::Duration;

use mitosis_bridge::{CallError, Client, ClientFds, ClientHandle, Expected, FetchAnswer, LocalId};

use crate::support::child::{LOCAL_ID, MANAGER};

const DEADLINE: Duration = Duration::from_secs(20);

pub(super) fn play(role: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let expected = Expected {
            manager: std::env::var(MANAGER).unwrap().parse().unwrap(),
            local_id: LocalId(std::env::var(LOCAL_ID).unwrap().parse().unwrap()),
        };
        let fds = ClientFds::inherited().unwrap();
        let (client, handle, setup) = Client::open(fds, expected).await.unwrap();
        assert_eq!(setup.local_id, expected.local_id);
        match role {
            "echo" => echo(&handle).await,
            "report-and-die" => report_and_die(&handle).await,
            "until-gone" => until_gone(&handle).await,
            other => panic!("unknown role {other}"),
        }
        client.close(DEADLINE).await;
    });
}

/// Fetches and reports until there is no more work. The acknowledgement is not waited for before the next fetch.
async fn echo(handle: &ClientHandle) {
    let mut last = None;
    loop {
        match handle.fetch().await.unwrap() {
            FetchAnswer::Reply(payload) => {
                let reporter = handle.clone();
                last = Some(tokio::spawn(async move {
                    reporter.report(payload, DEADLINE).await
                }));
            }
            FetchAnswer::Empty => {}
            FetchAnswer::Draining => break,
        }
    }
    if let Some(last) = last {
        last.await.unwrap().unwrap();
    }
}

/// Sends a report and is gone before anybody can answer.
async fn report_and_die(handle: &ClientHandle) {
    let reporter = handle.clone();
    tokio::spawn(async move { reporter.report("last words".into(), DEADLINE).await });
    crate::support::wait::pause(Duration::from_millis(20)).await;
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
}

async fn until_gone(handle: &ClientHandle) {
    let fetched = loop {
        match handle.fetch().await {
            Ok(FetchAnswer::Empty | FetchAnswer::Draining) => {
                crate::support::wait::pause(Duration::from_millis(1)).await
            }
            other => break other,
        }
    };
    assert!(matches!(fetched, Err(CallError::Gone)), "{fetched:?}");
    assert!(*handle.gone().borrow());
}
