//! A web server that says one thing, or nothing.

use std::io::{Read, Write};
use std::net::TcpListener;

/// Answers every request with `answer`, or takes connections and never answers when there is none. Returns the URL of
/// a file on it.
pub(crate) fn server(answer: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let serve = move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let Some(answer) = answer else {
                open.push(stream);
                continue;
            };
            let mut request = [0; 4096];
            // A client that is gone needs no answer.
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    };
    let thread = std::thread::Builder::new().name("web".to_owned());
    thread.spawn(serve).expect("a thread");
    format!("http://{address}/x")
}
