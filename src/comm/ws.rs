//! A manager's way to its coordinator over a WebSocket.
//!
//! [`WsConnector`] opens a link each time it is asked; when to ask again, and how long to pause, is the manager's
//! decision. The token is read anew for each opening, so that an operator can exchange its file under a running
//! manager. Frames are carried by the same pump as on the coordinator's side.

mod stream;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use secrecy::ExposeSecret;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, HeaderValue};
use tokio_tungstenite::tungstenite::http::{Response, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::link::{self, ConnectError, Connector, MAX_FRAME_BYTES, ManagerEnd};
use super::pump::{LinkEnds, Packet, PumpEnd, Timing, pump};
use crate::client::{BaseUrl, UrlError};
use crate::endpoint::TokenSource;
use crate::private_file::PrivateFileError;
use crate::protocol::api::ErrorBody;
use stream::{SocketStream, Tls};

/// How long an opening may take, from name resolution to the answer.
const OPENING: Duration = Duration::from_secs(10);

/// Why no connector can be made.
#[derive(Debug, thiserror::Error)]
pub enum WsConfigError {
    /// The URL makes no sense.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The system's certificates cannot be used for `https`.
    #[error("failed to set up TLS with the system's certificates")]
    Tls(#[source] rustls::Error),
}

/// Opens sessions with the coordinator at one URL.
#[derive(Debug, Clone)]
pub struct WsConnector {
    base: BaseUrl,
    token: TokenSource,
    tls: Option<Tls>,
}

impl WsConnector {
    /// A connector to the coordinator at `url` (`http` or `https`), with a token of scope manager.
    ///
    /// # Errors
    /// When the URL makes no sense, or TLS cannot be set up for an `https` one.
    pub fn new(url: &str, token: TokenSource) -> Result<Self, WsConfigError> {
        let base = BaseUrl::parse(url)?;
        let tls = if base.is_secure() {
            Some(Tls::with_system_roots().map_err(WsConfigError::Tls)?)
        } else {
            None
        };
        Ok(Self { base, token, tls })
    }

    fn unreachable(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ConnectError {
        ConnectError::Unreachable {
            url: self.base.to_string(),
            source: source.into(),
        }
    }

    async fn open(&self) -> Result<WebSocketStream<SocketStream>, ConnectError> {
        let request = self.request().await?;
        let (host, port) = self.base.host_and_port();
        let stream = SocketStream::connect(&host, port, self.tls.as_ref())
            .await
            .map_err(|error| self.unreachable(error))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => Ok(socket),
            Err(WsError::Http(answer)) => Err(self.refused(&answer)),
            Err(error) => Err(self.unreachable(error)),
        }
    }

    async fn request(&self) -> Result<Request, ConnectError> {
        let token = match self.token.load().await {
            Ok(token) => token,
            // A file that is being exchanged may be missing for a moment.
            Err(error @ (PrivateFileError::Missing { .. } | PrivateFileError::Io { .. })) => {
                return Err(self.unreachable(error));
            }
            Err(error) => {
                return Err(ConnectError::Refused {
                    reason: error.to_string(),
                });
            }
        };
        let url = self.base.session_url();
        let request = url.as_str().into_client_request();
        let mut request = request.map_err(|error| self.unreachable(error))?;
        let value = format!("Bearer {}", token.expose_secret());
        let mut value = HeaderValue::try_from(value).map_err(|_| ConnectError::Refused {
            reason: "the token has characters that no token has; check its file".to_owned(),
        })?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(request)
    }

    /// Refusals that another attempt cannot change are told apart from passing faults.
    fn refused(&self, answer: &Response<Option<Vec<u8>>>) -> ConnectError {
        let body = answer.body().as_deref().unwrap_or_default();
        let words = serde_json::from_slice::<ErrorBody>(body).map(|body| body.error.message);
        match answer.status() {
            StatusCode::UNAUTHORIZED => ConnectError::Refused {
                reason: words.unwrap_or_else(|_| {
                    "the token is missing, expired or not valid there; make one of scope manager with `mitosis token`"
                        .to_owned()
                }),
            },
            StatusCode::FORBIDDEN => ConnectError::Refused {
                reason: words.unwrap_or_else(|_| {
                    "the token is not of scope manager; make one with `mitosis token`".to_owned()
                }),
            },
            status => {
                let words = words.unwrap_or_else(|_| "no words".to_owned());
                self.unreachable(format!("it answered {status}: {words}"))
            }
        }
    }
}

#[async_trait]
impl Connector for WsConnector {
    async fn connect(&self) -> Result<ManagerEnd, ConnectError> {
        let opened = tokio::time::timeout(OPENING, self.open()).await;
        let socket = opened.unwrap_or_else(|_| {
            Err(self.unreachable("the opening of the session took too long"))
        })?;
        let (mut manager, coordinator) = link::pair();
        manager.url = Some(self.base.to_string());
        let ends = LinkEnds {
            inbound: coordinator.frames_tx,
            outbound: coordinator.frames_rx,
            cause: manager.cause.clone(),
        };
        tokio::spawn(carry(socket, ends));
        Ok(manager)
    }
}

/// Ends with the socket or with the manager's end of the link.
async fn carry(
    socket: WebSocketStream<SocketStream>,
    ends: LinkEnds<crate::protocol::session::ToManager, crate::protocol::session::ToCoordinator>,
) {
    let (sink, stream) = socket.split();
    let stream = stream.map(|message| message.map(packet));
    let sink = sink.with(|packet| std::future::ready(Ok::<_, WsError>(message(packet))));
    let end = pump(
        stream,
        sink,
        ends,
        Timing::default(),
        std::future::pending(),
    )
    .await;
    match end {
        PumpEnd::LocalClosed | PumpEnd::PeerClosed => {
            tracing::debug!(?end, "the session's socket was closed");
        }
        end => tracing::warn!(?end, "the session's socket was lost"),
    }
}

fn packet(message: Message) -> Packet {
    match message {
        Message::Binary(bytes) => Packet::Frame(bytes),
        Message::Ping(_) => Packet::Ping,
        Message::Pong(_) => Packet::Pong,
        Message::Close(_) => Packet::Close,
        Message::Text(_) | Message::Frame(_) => Packet::Foreign,
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
