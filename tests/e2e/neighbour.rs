//! Users who share a coordinator with somebody who floods it: lists and filters in a loop, connections with half a header,
//! specs as large as they may be, odd child tasks. Slower is allowed; stuck is not.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crate::support::{Sandbox, Service, processes, service, size, wait};

/// Asks again and again until told to stop.
fn ask(url: &str, token: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // Whatever is answered, and also when nothing is.
        let _ = service::get(url, token);
    }
}

/// A line for `MITO_NEW_TASK` as long as one may be, and longer once it is written again.
fn odd_line() -> String {
    let arguments = vec![format!("\"{}\"", "x".repeat(130_000)); 8].join(",");
    let begin = format!("{{\"timeout\":\"90m\",\"args\":[{arguments},\"");
    let rest = (1 << 20) - begin.len() - "\"]}".len();
    format!("{begin}{}\"]}}", "x".repeat(rest))
}

#[test]
fn who_shares_a_coordinator_with_a_flood_still_gets_through() {
    let sandbox = Sandbox::new();
    let service = Service::coordinator(&sandbox);
    let manager = service.manager(2, &[]);
    let count = size(200, 2000);
    let token = service.token("user");
    // Large specs that are claimed and run, together longer than a frame; and children that cannot be stored.
    let large = format!(
        "{{\"args\":[\"true\"{}]}}\n",
        format!(",\"{}\"", "x".repeat(130_000)).repeat(7)
    );
    service.submit_file(&sandbox.file("large.jsonl", large.repeat(24)));
    let line = sandbox.file("line", odd_line());
    let odd = format!("cp {} $MITO_NEW_TASK\n", line.display());
    service.submit_file(&sandbox.file("odd.txt", odd.repeat(20)));
    let address = service
        .url
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let half_open: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).expect("a connection");
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost:")
                .expect("half a header");
            stream
        })
        .collect();
    let stop = AtomicBool::new(false);
    let root = service.url.trim_end_matches('/');
    let lists = ["tasks?limit=1000", "tasks?select=label:a=b", "suites"];
    let urls = lists.map(|list| format!("{root}/api/v1/{list}"));
    thread::scope(|scope| {
        let (token, stop) = (&token, &stop);
        for url in &urls {
            scope.spawn(move || ask(url, token, stop));
        }
        let list = sandbox.file("list.txt", "true\n".repeat(count));
        let own = service.submit_file(&list);
        let running = service.submit("exec sleep 600");
        service.until_state(&running, "running");
        let asked = Instant::now();
        service.client(&["cancel", &running]).code(0);
        service.until_state(&running, "cancelled");
        let took = asked.elapsed();
        service.until_all_ended();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(own.len(), count);
        // Its grace, which it does not use, and two seconds; and what two calls of the program take here.
        assert!(took < wait::LONG / 4, "{took:?}");
    });
    drop(half_open);
    let tasks = service.tasks();
    let bad: Vec<_> = tasks
        .iter()
        .filter(|task| task.state() != "completed")
        .collect();
    assert_eq!(bad.len(), 1, "all but the cancelled one: {bad:?}");
    let connected = service.client(&["managers", "--json"]).out();
    assert!(!connected.contains("lost"), "its session held: {connected}");
    assert!(
        processes::peak_kib(service.program.pid()) < 1 << 20,
        "memory is bounded"
    );
    manager.stop().code(0);
    service.stop().code(0);
}
