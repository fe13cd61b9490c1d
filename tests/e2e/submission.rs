//! Handing over more tasks than one call takes, and a coordinator that dies meanwhile.

use std::collections::BTreeSet;

use crate::support::{Sandbox, Service, size, wait};

#[test]
fn a_submission_goes_on_over_a_restart_and_counts_once() {
    let sandbox = Sandbox::new();
    let count = size(30_000, 1_000_000);
    let service = Service::coordinator(&sandbox);
    let file = sandbox.file("list.txt", "true\n".repeat(count));
    let file = file.to_str().expect("a path in UTF-8");
    let submit = service.begin(&["submit", "--quiet", file]);
    wait::until("the first part to be there", wait::LONG, || {
        let there = service.client(&["suites", "--json"]).out();
        let begun = there.contains("pending");
        if begun { Ok(()) } else { Err(there) }
    });
    let service = service.kill_and_restart();
    let submitted = submit.finish().code(0).out();
    let uuids: BTreeSet<&str> = submitted.lines().collect();
    assert_eq!((submitted.lines().count(), uuids.len()), (count, count));
    wait::until("all of it to wait for a worker", wait::VERY_LONG, || {
        let counts = service.client(&["suites", "--json"]).out();
        let ready = counts.replace([' ', '\n'], "");
        if ready.contains(&format!("\"ready\":{count}")) {
            Ok(())
        } else {
            Err(counts)
        }
    });
    service.stop().code(0);
}

#[test]
fn a_submission_with_a_bad_line_far_behind_is_accepted_in_no_part() {
    let sandbox = Sandbox::new();
    let service = Service::up(&sandbox, 1);
    // More memory than there is, which the coordinator alone can tell.
    let mut lines = "{\"args\":[\"true\"]}\n".repeat(9_000);
    lines.push_str("{\"args\":[\"true\"],\"resources\":{\"mem_bytes\":1000000000000000}}\n");
    let file = sandbox.file("list.jsonl", lines);
    service.program.workers(1);
    let refused = service.client(&["submit", file.to_str().expect("a path in UTF-8")]);
    let refused = refused.code(2);
    assert!(refused.stderr.contains("task 9000"), "{}", refused.stderr);
    assert!(refused.stderr.contains("none"), "{}", refused.stderr);
    wait::until("nothing of it to be left", wait::LONG, || {
        let counts = service.client(&["suites", "--json"]).out();
        let flat = counts.replace([' ', '\n'], "");
        let gone = flat.contains("\"cancelled\":8192");
        if gone { Ok(()) } else { Err(counts) }
    });
    service.stop().code(0);
}
