//! Carries session frames between a WebSocket and the bounded channels of a link.
//!
//! Both ends of a session run the same pump: the coordinator over axum's socket, the manager over its own. It encodes
//! and decodes, pings, and ends both sides as soon as one ends. It does not reconnect and knows nothing of what the
//! frames say.
//!
//! ```text
//!   channel --recv--> encode --> sink    } whichever ends first ends the other;
//!   channel <--send-- decode <-- stream  } then: close frame, short wait for the peer's, drop
//! ```
//!
//! A full channel to this side stops the reading, so that the socket holds up the peer. The time spent waiting for
//! room does not count as the peer's silence.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::comm::link::{Cause, MAX_FRAME_BYTES};
use crate::protocol::frame;

/// Frames sent before the socket is flushed, when more are waiting.
const BATCH: usize = 16;

/// What travels on the socket, for either WebSocket library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    /// A frame.
    Frame(Bytes),
    /// A sign of life that asks for one.
    Ping,
    /// A sign of life.
    Pong,
    /// The end.
    Close,
    /// Something that has no place in a session.
    Foreign,
}

/// How patient a pump is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Pause between pings.
    pub(crate) ping: Duration,
    /// Longest silence of the peer; above two pings, so that one may be lost.
    pub(crate) silence: Duration,
    /// Longest time one write may take.
    pub(crate) write: Duration,
    /// How long to wait for the peer's close.
    pub(crate) close: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(30),
            silence: Duration::from_secs(75),
            write: Duration::from_secs(30),
            close: Duration::from_secs(1),
        }
    }
}

/// Why a pump ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PumpEnd {
    /// This side dropped its end of the link.
    LocalClosed,
    /// The peer closed the socket.
    PeerClosed,
    /// Nothing was heard of the peer for too long.
    PeerSilent,
    /// The peer sent what is no frame.
    BadFrame(String),
    /// A frame of this side is too long for the socket.
    Oversize(usize),
    /// The socket failed.
    Socket(String),
    /// This side was told to stop.
    Stopped,
}

impl fmt::Display for PumpEnd {
    /// In words for the operator of either side.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalClosed => f.write_str("this side closed the connection"),
            Self::PeerClosed => f.write_str("the peer closed the connection"),
            Self::PeerSilent => f.write_str("the peer neither spoke nor read for too long"),
            Self::BadFrame(what) => write!(f, "the peer sent what is no frame ({what})"),
            Self::Oversize(bytes) => write!(
                f,
                "a message of {bytes} bytes was to be sent, and {MAX_FRAME_BYTES} is the most"
            ),
            Self::Socket(error) => write!(f, "the connection failed ({error})"),
            Self::Stopped => f.write_str("this side stops"),
        }
    }
}

/// This side's ends of the link's channels.
#[derive(Debug)]
pub(crate) struct LinkEnds<In, Out> {
    /// Takes what the peer says.
    pub(crate) inbound: flume::Sender<In>,
    /// Gives what the peer is told.
    pub(crate) outbound: flume::Receiver<Out>,
    /// Told to this side when the link breaks.
    pub(crate) cause: Cause,
}

/// Runs until one side ends, then closes the socket and drops the ends.
pub(crate) async fn pump<In, Out, E>(
    stream: impl Stream<Item = Result<Packet, E>>,
    sink: impl Sink<Packet, Error = E>,
    ends: LinkEnds<In, Out>,
    timing: Timing,
    stop: impl Future<Output = ()>,
) -> PumpEnd
where
    In: DeserializeOwned,
    Out: Serialize,
    E: fmt::Display,
{
    let (mut stream, mut sink) = (pin!(stream), pin!(sink));
    let LinkEnds {
        inbound,
        outbound,
        cause,
    } = ends;
    let end = tokio::select! {
        end = read(stream.as_mut(), &inbound, timing) => end,
        end = write(sink.as_mut(), &outbound, timing) => end,
        () = stop => PumpEnd::Stopped,
    };
    if !matches!(end, PumpEnd::LocalClosed | PumpEnd::Stopped) {
        cause.say(end.to_string());
    }
    // Closed first: this side learns of the end now and not after the farewell.
    drop((inbound, outbound));
    let farewell = async {
        // A peer that is gone needs no farewell.
        if sink.send(Packet::Close).await.is_ok() {
            // Unread data would turn the close into a reset, which destroys what the peer has not read yet.
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    // Whoever does not answer the farewell in time is left.
    let _ = tokio::time::timeout(timing.close, farewell).await;
    end
}

async fn read<In, E, S>(
    mut stream: Pin<&mut S>,
    inbound: &flume::Sender<In>,
    timing: Timing,
) -> PumpEnd
where
    In: DeserializeOwned,
    E: fmt::Display,
    S: Stream<Item = Result<Packet, E>>,
{
    loop {
        let packet = match tokio::time::timeout(timing.silence, stream.next()).await {
            Err(_) => return PumpEnd::PeerSilent,
            Ok(None | Some(Ok(Packet::Close))) => return PumpEnd::PeerClosed,
            Ok(Some(Err(error))) => return PumpEnd::Socket(error.to_string()),
            Ok(Some(Ok(packet))) => packet,
        };
        let bytes = match packet {
            Packet::Frame(bytes) => bytes,
            Packet::Foreign => return PumpEnd::BadFrame("a text message".to_owned()),
            Packet::Ping | Packet::Pong | Packet::Close => continue,
        };
        match frame::decode("session frame", &bytes) {
            Err(error) => return PumpEnd::BadFrame(error.to_string()),
            Ok(frame) => {
                if inbound.send_async(frame).await.is_err() {
                    return PumpEnd::LocalClosed;
                }
            }
        }
    }
}

async fn write<Out, E, S>(
    mut sink: Pin<&mut S>,
    outbound: &flume::Receiver<Out>,
    timing: Timing,
) -> PumpEnd
where
    Out: Serialize,
    E: fmt::Display,
    S: Sink<Packet, Error = E>,
{
    let mut pings = tokio::time::interval(timing.ping);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick comes at once; an open socket needs no ping yet.
    pings.tick().await;
    loop {
        let first = tokio::select! {
            frame = outbound.recv_async() => match frame {
                Ok(frame) => Some(frame),
                Err(_) => return PumpEnd::LocalClosed,
            },
            _ = pings.tick() => None,
        };
        let sending = send(sink.as_mut(), first, outbound);
        match tokio::time::timeout(timing.write, sending).await {
            Err(_) => return PumpEnd::PeerSilent,
            Ok(Err(end)) => return end,
            Ok(Ok(())) => {}
        }
    }
}

/// Sends a frame and what waits behind it, or a ping.
async fn send<Out, E, S>(
    mut sink: Pin<&mut S>,
    first: Option<Out>,
    outbound: &flume::Receiver<Out>,
) -> Result<(), PumpEnd>
where
    Out: Serialize,
    E: fmt::Display,
    S: Sink<Packet, Error = E>,
{
    let broken = |error: E| PumpEnd::Socket(error.to_string());
    let Some(first) = first else {
        return sink.send(Packet::Ping).await.map_err(broken);
    };
    let mut frame = first;
    for _ in 0..BATCH {
        let bytes = frame::encode(&frame);
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(PumpEnd::Oversize(bytes.len()));
        }
        let fed = sink.feed(Packet::Frame(bytes.into())).await;
        fed.map_err(broken)?;
        match outbound.try_recv() {
            Ok(next) => frame = next,
            Err(_) => return sink.flush().await.map_err(broken),
        }
    }
    // The batch is full and one more frame is in hand.
    let bytes = frame::encode(&frame);
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(PumpEnd::Oversize(bytes.len()));
    }
    let last = sink.send(Packet::Frame(bytes.into())).await;
    last.map_err(broken)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    const SHORT: Timing = Timing {
        ping: Duration::from_millis(20),
        silence: Duration::from_millis(200),
        write: Duration::from_millis(200),
        close: Duration::from_millis(20),
    };

    type Packets = flume::Receiver<Packet>;

    /// A pump whose socket is a pair of channels; returns what it sent and how it ended.
    async fn run(
        heard: impl Stream<Item = Packet>,
        ends: LinkEnds<u32, u32>,
        stop: impl Future<Output = ()>,
    ) -> (PumpEnd, Packets) {
        // Room for everything a test sends.
        let (sent_tx, sent_rx) = flume::bounded(1024);
        let sink = sent_tx
            .into_sink()
            .sink_map_err(|_| -> Infallible { unreachable!("the receiver outlives the pump") });
        let heard = heard.map(Ok::<_, Infallible>);
        (pump(heard, sink, ends, SHORT, stop).await, sent_rx)
    }

    struct Local {
        told: flume::Sender<u32>,
        heard: flume::Receiver<u32>,
    }

    fn link() -> (Local, LinkEnds<u32, u32>) {
        let (told, outbound) = flume::bounded(64);
        let (inbound, heard) = flume::bounded(64);
        let cause = Cause::default();
        let ends = LinkEnds {
            inbound,
            outbound,
            cause,
        };
        (Local { told, heard }, ends)
    }

    fn packet(number: u32) -> Packet {
        Packet::Frame(frame::encode(&number).into())
    }

    fn silence() -> impl Stream<Item = Packet> {
        stream::pending()
    }

    #[tokio::test]
    async fn frames_pass_in_order_and_the_close_comes_last() {
        let (local, ends) = link();
        for number in 0..40 {
            local.told.send(number).unwrap();
        }
        drop(local.told);
        let (end, sent) = run(silence(), ends, std::future::pending()).await;
        assert_eq!(end, PumpEnd::LocalClosed);
        let mut expected: Vec<Packet> = (0..40).map(packet).collect();
        expected.push(Packet::Close);
        assert_eq!(sent.drain().collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn what_the_peer_said_before_it_left_is_heard() {
        let (local, ends) = link();
        let heard = stream::iter([packet(1), Packet::Ping, packet(2), Packet::Close]);
        let (end, _sent) = run(heard, ends, std::future::pending()).await;
        assert_eq!(end, PumpEnd::PeerClosed);
        assert_eq!(local.heard.drain().collect::<Vec<_>>(), [1, 2]);
        assert!(local.heard.is_disconnected() && local.told.is_disconnected());
    }

    #[tokio::test]
    async fn a_silent_peer_is_pinged_and_then_given_up() {
        let (_local, ends) = link();
        let (end, sent) = run(silence(), ends, std::future::pending()).await;
        assert_eq!(end, PumpEnd::PeerSilent);
        assert_eq!(sent.try_recv(), Ok(Packet::Ping));
    }

    #[tokio::test]
    async fn a_peer_that_answers_pings_is_kept() {
        let (_local, ends) = link();
        let pongs = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((Packet::Pong, ()))
        });
        let stop = tokio::time::sleep(3 * SHORT.silence);
        let (end, _sent) = run(pongs, ends, stop).await;
        assert_eq!(end, PumpEnd::Stopped);
    }

    #[tokio::test]
    async fn a_peer_that_talks_and_does_not_read_is_given_up() {
        let (local, ends) = link();
        (0..40).for_each(|number| local.told.send(number).unwrap());
        let (sent_tx, _unread) = flume::bounded(1);
        let sink = sent_tx
            .into_sink()
            .sink_map_err(|_| -> Infallible { unreachable!("the receiver outlives the pump") });
        let pongs = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((Ok::<_, Infallible>(Packet::Pong), ()))
        });
        let cause = ends.cause.clone();
        let end = pump(pongs, sink, ends, SHORT, std::future::pending()).await;
        assert_eq!(end, PumpEnd::PeerSilent);
        assert!(cause.words().unwrap().contains("read"), "{cause:?}");
    }

    #[tokio::test]
    async fn what_is_no_frame_ends_the_session() {
        for nonsense in [
            Packet::Foreign,
            Packet::Frame(Bytes::from_static(b"\xc1nonsense")),
        ] {
            let (_local, ends) = link();
            let heard = stream::iter([nonsense]).chain(silence());
            let (end, _sent) = run(heard, ends, std::future::pending()).await;
            assert!(matches!(end, PumpEnd::BadFrame(_)), "{end:?}");
        }
    }
}
