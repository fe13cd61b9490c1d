//! A manager's WebSocket on the coordinator's side: frames between the socket and a session.
//!
//! The HTTP face opens it after it has checked the token; the session itself is
//! [`Coordinator::serve_session`](super::Coordinator::serve_session), which sees the same channels as over memory.

use std::future::Future;

use axum::extract::ws::{Message, WebSocket};
use futures_util::{SinkExt, StreamExt};

use super::Coordinator;
use crate::comm::link;
use crate::comm::pump::{LinkEnds, Packet, PumpEnd, Timing, pump};

/// Serves one manager until either side ends or `stop` resolves.
pub(super) async fn serve(
    coordinator: Coordinator,
    socket: WebSocket,
    subject: String,
    stop: impl Future<Output = ()>,
) {
    let (manager, end) = link::pair();
    let ends = LinkEnds {
        inbound: manager.frames_tx,
        outbound: manager.frames_rx,
        cause: end.cause.clone(),
    };
    let (sink, stream) = socket.split();
    let stream = stream.map(|message| message.map(packet));
    let sink = sink.with(|packet| std::future::ready(Ok::<_, axum::Error>(message(packet))));
    let pumping = pump(stream, sink, ends, Timing::default(), stop);
    // Both: a session that ends closes the socket after its last frame, a socket that ends closes the session.
    let (session, pumped) = tokio::join!(coordinator.serve_session(end, subject), pumping);
    match pumped {
        PumpEnd::BadFrame(what) => tracing::warn!(what, "a manager sent what is no frame"),
        PumpEnd::Oversize(bytes) => {
            tracing::error!(bytes, "a frame for a manager was too long for its socket");
        }
        end => tracing::debug!(?session, ?end, "a manager's socket was closed"),
    }
}

fn packet(message: Message) -> Packet {
    match message {
        Message::Binary(bytes) => Packet::Frame(bytes),
        Message::Ping(_) => Packet::Ping,
        Message::Pong(_) => Packet::Pong,
        Message::Close(_) => Packet::Close,
        Message::Text(_) => Packet::Foreign,
    }
}

fn message(packet: Packet) -> Message {
    match packet {
        Packet::Frame(bytes) => Message::Binary(bytes),
        Packet::Ping => Message::Ping(bytes::Bytes::new()),
        Packet::Pong => Message::Pong(bytes::Bytes::new()),
        Packet::Close | Packet::Foreign => Message::Close(None),
    }
}
