//! The address of a coordinator.

use std::fmt;

use reqwest::Url;

use crate::protocol::api::API_ROOT;

/// A coordinator's address: scheme, host, port, and the path a proxy may have put it under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(Url);

/// The text is no address of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no coordinator URL: {reason}; write for example http://127.0.0.1:5000")]
pub struct UrlError {
    text: String,
    reason: String,
}

impl BaseUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// When it is not `http` or `https`, has no host, or has parts that no address has. Passwords are not repeated.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let refuse = |text: &str, reason: &str| UrlError {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let url = Url::parse(text).map_err(|error| refuse(text, &error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            let hidden = format!("{}://…", url.scheme());
            return Err(refuse(
                &hidden,
                "it has a user or password in it, give a token",
            ));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse(text, "it begins with neither http:// nor https://"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse(text, "it has a query or fragment"));
        }
        Ok(Self(url))
    }

    /// True for `https`.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// True when the host is this machine by address or by the name `localhost`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let (host, _) = self.host_and_port();
        let ip = host.parse::<std::net::IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }

    /// Host (a literal address of version 6 without brackets) and port.
    ///
    /// # Panics
    /// Never: `http` and `https` URLs have a host and a known port.
    #[must_use]
    pub fn host_and_port(&self) -> (String, u16) {
        let host = self.0.host_str().expect("an http URL has a host");
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.0.port_or_known_default();
        (host.to_owned(), port.expect("http has a known port"))
    }

    /// The address of a path below `/api/v1`; `path` begins with a slash.
    #[must_use]
    pub fn api(&self, path: &str) -> Url {
        self.path(&format!("{API_ROOT}{path}"))
    }

    /// The address of a path beside the API; `path` begins with a slash.
    #[must_use]
    pub fn path(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        let prefix = self.0.path().trim_end_matches('/');
        url.set_path(&format!("{prefix}{path}"));
        url
    }

    /// The address of a manager's WebSocket.
    #[must_use]
    pub fn session_url(&self) -> String {
        let url = self.api("/session");
        let scheme = if self.is_secure() { "wss" } else { "ws" };
        format!("{scheme}{}", &url.as_str()[url.scheme().len()..])
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_calls_keep_the_path_of_a_proxy() {
        let url = |base: &str| BaseUrl::parse(base).unwrap();
        assert_eq!(
            url("http://h:5/x/").api("/tasks").as_str(),
            "http://h:5/x/api/v1/tasks"
        );
        assert_eq!(url("https://h").session_url(), "wss://h/api/v1/session");
        assert_eq!(
            url("http://[::1]:5").session_url(),
            "ws://[::1]:5/api/v1/session"
        );
        assert_eq!(url("http://[::1]:5").host_and_port(), ("::1".to_owned(), 5));
        assert_eq!(url("https://h").host_and_port(), ("h".to_owned(), 443));
        assert!(url("http://127.0.0.1").is_loopback() && !url("http://h").is_loopback());
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_a_password() {
        for text in ["", "127.0.0.1:5", "ftp://h", "http://", "http://h/?a=b"] {
            assert!(BaseUrl::parse(text).is_err(), "{text}");
        }
        let error = BaseUrl::parse("http://ann:pass@h").unwrap_err().to_string();
        assert!(
            !error.contains("pass@") && !error.contains("ann"),
            "{error}"
        );
    }
}
