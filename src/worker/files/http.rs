//! The HTTP client for bytes: made at the first use, because most workers never need one.

use std::sync::OnceLock;
use std::time::Duration;

use crate::client::{BaseUrl, install_crypto_provider};
use crate::error_chain::error_chain;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest silence while an answer is awaited or read.
const SILENCE: Duration = Duration::from_secs(30);

/// The client for an address. It sends no token and keeps no cookie.
///
/// # Errors
/// When TLS cannot be set up.
pub(super) fn client(address: &str) -> Result<&'static reqwest::Client, reqwest::Error> {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    static DIRECT: OnceLock<reqwest::Client> = OnceLock::new();
    // A proxy is not used on the way to this machine.
    let is_here = BaseUrl::parse(address.split('?').next().unwrap_or_default())
        .is_ok_and(|url| url.is_loopback());
    let kept = if is_here { &DIRECT } else { &CLIENT };
    if let Some(client) = kept.get() {
        return Ok(client);
    }
    install_crypto_provider();
    let builder = || {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("mitosis/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE);
        if is_here { builder.no_proxy() } else { builder }
    };
    // A machine without certificates can still use `http`.
    let client = builder()
        .build()
        .or_else(|_| builder().tls_certs_only([]).build())?;
    Ok(kept.get_or_init(|| client))
}

/// An error and what caused it, on one line and without the address, which may hold a signature.
pub(super) fn words(error: reqwest::Error) -> String {
    error_chain(&error.without_url())
}
