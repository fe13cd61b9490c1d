//! Accepting connections, and how long and how many of them may do nothing.
//!
//! A connection costs a descriptor and a task, whoever opened it. So one that does not send a whole header within
//! [`Bounds::header`] is closed, also between two requests, and one peer has no more than its share. What a body may take
//! is the business of whoever reads it, and a WebSocket's that of its pump.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::telemetry::names;

/// Pause after a failure to accept that is not the peer's: no descriptor is left, or no memory.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// What connections may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Longest time until a whole header is there, from the opening or the end of the last answer.
    pub(super) header: Duration,
    /// Most connections of one address.
    pub(super) per_peer: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(30),
            // A machine with 256 independent workers has three for each.
            per_peer: 1024,
        }
    }
}

/// Serves until `stop` resolves; returns when the requests that were in flight then have been answered.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut stop = pin!(stop);
    let peers = Arc::new(Peers::default());
    // Every connection holds a receiver: it hears the end by it, and the end hears the last of them.
    let (end_tx, end_rx) = watch::channel(false);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.header);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(NO_ROOM_PAUSE).await;
                continue;
            }
        };
        let Some(place) = Peers::admit(&peers, peer, bounds.per_peer) else {
            counter!(names::COORDINATOR_CONNECTIONS_REFUSED).increment(1);
            tracing::debug!(%peer, "a connection is closed: its peer has as many as it may");
            continue;
        };
        prompt(&stream);
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let mut end_rx = end_rx.clone();
        tokio::spawn(async move {
            let _place = place;
            let mut connection = pin!(connection.with_upgrades());
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                // A closed channel is an end as well; it is true once and stays so.
                _ = end_rx.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended before its end");
            }
        });
    }
    drop((listener, end_rx));
    end_tx.send_replace(true);
    end_tx.closed().await;
    Ok(())
}

/// Answers are small and waited for: they are not held back to be sent with others.
fn prompt(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection stays with delayed sends");
    }
}

/// True for an error that concerns the connection that was to be accepted and no other.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Open connections by address.
#[derive(Debug, Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// One of them; leaving it makes room.
#[derive(Debug)]
struct Place {
    peers: Arc<Peers>,
    address: IpAddr,
}

impl Peers {
    fn admit(peers: &Arc<Self>, peer: SocketAddr, most: usize) -> Option<Place> {
        let address = peer.ip();
        let mut open = peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = open.entry(address).or_default();
        if *number >= most {
            return None;
        }
        *number += 1;
        Some(Place {
            peers: Arc::clone(peers),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = open.get_mut(&self.address) {
            *number -= 1;
            if *number == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Bounds = Bounds {
        header: Duration::from_millis(200),
        per_peer: 8,
    };

    async fn served(bounds: Bounds) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(async || "here");
        tokio::spawn(serve(listener, router, bounds, std::future::pending()));
        address
    }

    /// What comes until the other side closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        let reading = stream.read_to_end(&mut bytes);
        let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
        // A reset is an end as well.
        let _ = read.expect("it is closed in time");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn half_a_header_is_not_waited_for_for_ever() {
        let address = served(SHORT).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        rest(&mut stream).await;
    }

    #[tokio::test]
    async fn neither_is_a_second_request_of_one_that_is_idle() {
        let address = served(SHORT).await;
        let began = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        assert!(rest(&mut stream).await.ends_with("here"));
        assert!(began.elapsed() >= SHORT.header, "it is kept for the next");
    }

    #[tokio::test]
    async fn one_peer_has_no_more_than_its_share_and_gets_it_back() {
        let bounds = Bounds {
            header: Duration::from_secs(60),
            ..SHORT
        };
        let address = served(bounds).await;
        let mut open = Vec::new();
        for _ in 0..bounds.per_peer {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET").await.unwrap();
            open.push(stream);
        }
        let mut beyond = TcpStream::connect(address).await.unwrap();
        assert_eq!(rest(&mut beyond).await, "");
        open.clear();
        let answered = async || {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            // It may be closed before it is read.
            let _ = stream.write_all(request).await;
            rest(&mut stream).await.ends_with("here")
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !answered().await {
            assert!(Instant::now() < deadline, "no room again");
        }
    }
}
