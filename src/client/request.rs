//! One call: address, token, bound, and what the answer means.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::base_url::BaseUrl;
use super::error::ClientError;
use super::tls::install_crypto_provider;
use crate::endpoint::Target;
use crate::protocol::api::ErrorBody;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take beyond what a long poll was asked to wait.
const ANSWER: Duration = Duration::from_secs(30);

/// A client of one coordinator under one token. Clones share connections.
#[derive(Debug, Clone)]
pub struct ApiClient {
    http: reqwest::Client,
    base: BaseUrl,
    token: SecretString,
}

/// What to ask.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    url: Url,
    body: Option<Vec<u8>>,
    long_poll: Duration,
    /// The body may take as long as it likes; its reader watches it.
    is_streamed: bool,
}

impl Call {
    pub(super) fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            body: None,
            long_poll: Duration::ZERO,
            is_streamed: false,
        }
    }

    pub(super) fn post(url: Url) -> Self {
        Self {
            method: Method::POST,
            ..Self::get(url)
        }
    }

    pub(super) fn put(url: Url) -> Self {
        Self {
            method: Method::PUT,
            ..Self::get(url)
        }
    }

    pub(super) fn delete(url: Url) -> Self {
        Self {
            method: Method::DELETE,
            ..Self::get(url)
        }
    }

    pub(super) fn json(mut self, body: &impl Serialize) -> Self {
        self.body = Some(serde_json::to_vec(body).expect("API bodies are plain data"));
        self
    }

    /// Bounds the answer's beginning alone.
    pub(super) fn streamed(self) -> Self {
        Self {
            is_streamed: true,
            ..self
        }
    }

    /// Adds a parameter of the query.
    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.url
            .query_pairs_mut()
            .append_pair(name, &value.to_string());
        self
    }

    /// Adds a parameter of the query, if there is one.
    pub(super) fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds the time the other side may park the request.
    pub(super) fn waiting(self, name: &str, wait: Duration) -> Self {
        let milliseconds = format!("{}ms", wait.as_millis());
        Self {
            long_poll: wait,
            ..self.with(name, milliseconds)
        }
    }
}

impl ApiClient {
    /// A client of the coordinator at `url`.
    ///
    /// # Errors
    /// When the URL makes no sense, or TLS cannot be set up for an `https` one.
    pub fn new(url: &str, token: SecretString) -> Result<Self, ClientError> {
        install_crypto_provider();
        let base = BaseUrl::parse(url)?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("mitosis/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none());
        if base.is_loopback() {
            builder = builder.no_proxy();
        }
        if !base.is_secure() {
            // Reading the system's certificates takes milliseconds, and a machine without any can still use `http`.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(ClientError::Setup)?;
        Ok(Self { http, base, token })
    }

    /// A client of a coordinator that was found.
    ///
    /// # Errors
    /// As [`ApiClient::new`], and when the token file cannot be used.
    pub async fn of(target: &Target) -> Result<Self, ClientError> {
        Self::new(&target.url, target.token.load().await?)
    }

    /// The same client under another token.
    #[must_use]
    pub fn with_token(&self, token: SecretString) -> Self {
        Self {
            token,
            ..self.clone()
        }
    }

    /// The coordinator's address.
    #[must_use]
    pub fn url(&self) -> String {
        self.base.to_string()
    }

    pub(super) fn api(&self, path: &str) -> Url {
        self.base.api(path)
    }

    pub(super) fn path(&self, path: &str) -> Url {
        self.base.path(path)
    }

    /// Sends a call; any answer but a success is an error.
    pub(super) async fn send(&self, call: Call) -> Result<Response, ClientError> {
        let authorization = format!("Bearer {}", self.token.expose_secret());
        let mut authorization =
            HeaderValue::try_from(authorization).map_err(|_| ClientError::TokenText)?;
        authorization.set_sensitive(true);
        let limit = ANSWER + call.long_poll;
        let mut request = self
            .http
            .request(call.method, call.url)
            .header(AUTHORIZATION, authorization);
        if !call.is_streamed {
            request = request.timeout(limit);
        }
        if let Some(body) = call.body {
            request = request
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(body);
        }
        let sent = if call.is_streamed {
            let sent = tokio::time::timeout(limit, request.send()).await;
            sent.map_err(|_| self.silent())?
        } else {
            request.send().await
        };
        let response = sent.map_err(|error| self.failed(error))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response).await)
        }
    }

    /// Waits for something that a streamed answer owes.
    pub(super) async fn in_time<T>(
        &self,
        owed: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, ClientError> {
        let came = tokio::time::timeout(ANSWER, owed).await;
        let came = came.map_err(|_| self.silent())?;
        came.map_err(|error| self.failed(error))
    }

    /// Reads an address that needs no token.
    pub(super) async fn get_public(
        &self,
        url: &str,
        limit: Duration,
    ) -> Result<Response, ClientError> {
        let sent = self.http.get(url).timeout(limit).send().await;
        let response = sent.map_err(|error| self.failed(error))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response).await)
        }
    }

    /// Sends a call whose success has a JSON body.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let bytes = self.bytes(call).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.nonsense(&error))
    }

    /// Sends a call whose success may have no body: none, an empty one, or `null` mean `None`.
    pub(super) async fn call_maybe<T: DeserializeOwned>(
        &self,
        call: Call,
    ) -> Result<Option<T>, ClientError> {
        let bytes = self.bytes(call).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&bytes).map_err(|error| self.nonsense(&error))
    }

    /// Sends a call whose success says nothing more.
    pub(super) async fn order(&self, call: Call) -> Result<(), ClientError> {
        self.bytes(call).await.map(drop)
    }

    async fn bytes(&self, call: Call) -> Result<bytes::Bytes, ClientError> {
        let response = self.send(call).await?;
        response.bytes().await.map_err(|error| self.failed(error))
    }

    /// Says what a failure on the way means.
    pub(super) fn failed(&self, error: reqwest::Error) -> ClientError {
        // The address is in the message already, and a query may be in the error's.
        let (url, source) = (self.url(), error.without_url());
        if source.is_connect() {
            ClientError::Unreachable { url, source }
        } else {
            ClientError::Interrupted { url, source }
        }
    }

    fn silent(&self) -> ClientError {
        ClientError::Silent { url: self.url() }
    }

    pub(super) fn nonsense(&self, what: &impl ToString) -> ClientError {
        ClientError::Protocol {
            url: self.url(),
            what: what.to_string(),
        }
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let status = response.status();
        let retry_after = retry_after(&response);
        let body = response.bytes().await.unwrap_or_default();
        let (code, message) = match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => (body.error.code, body.error.message),
            Err(_) => foreign_refusal(status, &self.base),
        };
        if status == StatusCode::UNAUTHORIZED {
            return ClientError::Unauthorized { message };
        }
        ClientError::Api {
            status: status.as_u16(),
            code,
            message,
            retry_after,
        }
    }
}

/// Words for an answer that no coordinator gave: a proxy's, or another program's.
fn foreign_refusal(status: StatusCode, base: &BaseUrl) -> (String, String) {
    let message = format!(
        "{base} answered {status} without an explanation; is a coordinator there, and a proxy on the way?"
    );
    ("foreign".to_owned(), message)
}

/// The pause an answer asks for, in its form of seconds. A date is not used by any coordinator.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}
