//! Addresses that are their own permission: what may be done with which artifact, until when, under a signature.
//!
//! An address is a path of the coordinator; whoever uses it puts it behind the coordinator's URL as he knows it. The
//! signature is an HMAC-SHA-256 over method, task, kinds, lease, expiry and issuer, so an address is worth nothing for
//! anything else. The coordinator signs with its own key ([`UrlKey`]) and gives each manager one derived from it, which
//! signs uploads while the coordinator is away; a derived key says nothing about any other. No clock here: the time is
//! passed in.

use std::fmt;

use ring::hmac;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::api::API_ROOT;
use super::artifact::ArtifactKind;
use super::ids::Lease;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Stands in the address of an upload for the kind that is uploaded.
const KIND_PLACE: &str = "{kind}";

/// What an address allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Get,
    /// Writing, once per kind.
    Put,
}

impl Access {
    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
        }
    }
}

/// What an address is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What is allowed.
    pub access: Access,
    /// Whose artifacts.
    pub task: Uuid,
    /// Which of them.
    pub kinds: Vec<ArtifactKind>,
    /// The lease under which they were made; 0 for reading whatever is there.
    pub lease: Lease,
    /// Until when, in seconds since the Unix epoch.
    pub expires_s: i64,
    /// The manager that signed; `None` when it was the coordinator.
    pub by: Option<Uuid>,
}

/// The query of an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub struct SignedQuery {
    /// Kinds that are allowed, separated by commas.
    pub kinds: String,
    /// The lease under which the artifacts were made; 0 when reading.
    pub lease: Lease,
    /// Until when, in seconds since the Unix epoch.
    pub expires: i64,
    /// The manager that signed, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Uuid>,
    /// The signature in hex.
    pub signature: String,
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was changed, or signed with another key.
    #[error("the address is not signed for this; ask for a new one and use it as it is")]
    Signature,
    /// Its time is over.
    #[error("the address has expired; ask for a new one")]
    Expired,
}

/// A key that signs addresses.
#[derive(Clone)]
pub struct UrlKey(hmac::Key);

impl fmt::Debug for UrlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlKey")
    }
}

impl UrlKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The bytes of the key that a manager signs with.
    #[must_use]
    pub fn of_manager(&self, manager: Uuid) -> Vec<u8> {
        let label = format!("mitosis manager key\n{manager}");
        hmac::sign(&self.0, label.as_bytes()).as_ref().to_vec()
    }

    /// The address for `grant`: for reading the first of its kinds, or for writing with a place for the kind that
    /// [`upload_address`] fills.
    #[must_use]
    pub fn address(&self, grant: &Grant) -> String {
        let kind = match (grant.access, grant.kinds.first()) {
            (Access::Get, Some(kind)) => kind.as_str(),
            _ => KIND_PLACE,
        };
        let signature = hex(hmac::sign(&self.0, text(grant).as_bytes()).as_ref());
        let by = grant.by.map_or_else(String::new, |by| format!("&by={by}"));
        format!(
            "{API_ROOT}/artifacts/{}/{kind}?kinds={}&lease={}&expires={}{by}&signature={signature}",
            grant.task,
            words(&grant.kinds),
            grant.lease,
            grant.expires_s
        )
    }

    /// Checks an address that was used for `access` to one artifact; returns what it grants.
    ///
    /// # Errors
    /// When it grants something else, or its time is over.
    pub fn check(
        &self,
        access: Access,
        (task, kind): (Uuid, ArtifactKind),
        query: &SignedQuery,
        now_s: i64,
    ) -> Result<Grant, Refusal> {
        let kinds: Option<Vec<_>> = query.kinds.split(',').map(ArtifactKind::parse).collect();
        let grant = Grant {
            access,
            task,
            kinds: kinds.ok_or(Refusal::Signature)?,
            lease: query.lease,
            expires_s: query.expires,
            by: query.by,
        };
        let signature = unhex(&query.signature).ok_or(Refusal::Signature)?;
        let verify = |key: &hmac::Key| hmac::verify(key, text(&grant).as_bytes(), &signature);
        let verified = match query.by {
            // A manager's key signs uploads and nothing else.
            Some(_) if access != Access::Put => return Err(Refusal::Signature),
            Some(manager) => verify(&Self::new(&self.of_manager(manager)).0),
            None => verify(&self.0),
        };
        if verified.is_err() || !grant.kinds.contains(&kind) {
            return Err(Refusal::Signature);
        }
        if grant.expires_s < now_s {
            return Err(Refusal::Expired);
        }
        Ok(grant)
    }
}

/// The whole address for uploading `kind`: `url` as the answer to a report carries it, behind the coordinator's URL
/// unless it names a host itself.
#[must_use]
pub fn upload_address(coordinator: &str, url: &str, kind: ArtifactKind) -> String {
    absolute(coordinator, &url.replace(KIND_PLACE, kind.as_str()))
}

/// An address behind the coordinator's URL, unless it names a host itself.
#[must_use]
pub fn absolute(coordinator: &str, address: &str) -> String {
    if address.starts_with('/') {
        format!("{}{address}", coordinator.trim_end_matches('/'))
    } else {
        address.to_owned()
    }
}

/// What is signed. Every part ends with a line end, and none can hold one.
fn text(grant: &Grant) -> String {
    let by = grant
        .by
        .map_or_else(|| "coordinator".to_owned(), |by| by.to_string());
    format!(
        "mitosis artifact\n{}\n{}\n{}\n{}\n{}\n{by}\n",
        grant.access.as_str(),
        grant.task,
        words(&grant.kinds),
        grant.lease,
        grant.expires_s
    )
}

fn words(kinds: &[ArtifactKind]) -> String {
    let words: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    words.join(",")
}

/// Bytes as hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

/// The bytes that hex digits say.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes = text.as_bytes().chunks(2).map(|pair| {
        let [high, low] = pair else { return None };
        u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: Uuid = Uuid::from_u128(1);
    const MANAGER: Uuid = Uuid::from_u128(2);

    fn grant(access: Access, by: Option<Uuid>) -> Grant {
        Grant {
            access,
            task: TASK,
            kinds: vec![ArtifactKind::Result, ArtifactKind::Exec],
            lease: Lease::new(1, 2),
            expires_s: 1000,
            by,
        }
    }

    /// The query of an address, as the coordinator reads it.
    fn query(address: &str) -> SignedQuery {
        let url = reqwest::Url::parse(&absolute("http://h/", address)).unwrap();
        let pairs: std::collections::BTreeMap<String, String> =
            url.query_pairs().into_owned().collect();
        SignedQuery {
            kinds: pairs["kinds"].clone(),
            lease: pairs["lease"].parse().unwrap(),
            expires: pairs["expires"].parse().unwrap(),
            by: pairs.get("by").map(|by| by.parse().unwrap()),
            signature: pairs["signature"].clone(),
        }
    }

    #[test]
    fn an_address_allows_what_it_was_signed_for_and_nothing_else() {
        let key = UrlKey::new(&[1; KEY_BYTES]);
        let signed = query(&key.address(&grant(Access::Put, None)));
        let check = |access, what, query: &SignedQuery, now| key.check(access, what, query, now);
        let result = (TASK, ArtifactKind::Result);
        let granted = check(Access::Put, result, &signed, 999).unwrap();
        assert_eq!(granted, grant(Access::Put, None));
        let refused = Err(Refusal::Signature);
        assert_eq!(check(Access::Get, result, &signed, 999), refused);
        let other = (Uuid::from_u128(3), ArtifactKind::Result);
        assert_eq!(check(Access::Put, other, &signed, 999), refused);
        let kind = (TASK, ArtifactKind::Stdout);
        assert_eq!(check(Access::Put, kind, &signed, 999), refused);
        let expired = check(Access::Put, result, &signed, 1001);
        assert_eq!(expired, Err(Refusal::Expired));
    }

    #[test]
    fn a_changed_address_is_refused() {
        let key = UrlKey::new(&[1; KEY_BYTES]);
        let signed = query(&key.address(&grant(Access::Put, None)));
        let changes: [fn(&mut SignedQuery); 6] = [
            |query| query.kinds.push_str(",stdout"),
            |query| query.lease = Lease::new(1, 3),
            |query| query.expires += 1,
            |query| query.by = Some(MANAGER),
            |query| query.signature.replace_range(0..1, "x"),
            |query| query.signature.clear(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = signed.clone();
            change(&mut changed);
            let checked = key.check(Access::Put, (TASK, ArtifactKind::Result), &changed, 0);
            assert_eq!(checked, Err(Refusal::Signature), "change {number}");
        }
    }

    #[test]
    fn a_managers_key_signs_uploads_in_its_own_name_alone() {
        let key = UrlKey::new(&[1; KEY_BYTES]);
        let managers = UrlKey::new(&key.of_manager(MANAGER));
        let what = (TASK, ArtifactKind::Exec);
        let check = |access, by| {
            let signed = query(&managers.address(&grant(access, by)));
            key.check(access, what, &signed, 0).is_ok()
        };
        assert!(check(Access::Put, Some(MANAGER)));
        assert!(!check(Access::Put, Some(TASK)) && !check(Access::Put, None));
        assert!(!check(Access::Get, Some(MANAGER)));
    }

    #[test]
    fn an_upload_goes_behind_the_coordinators_url_unless_it_names_a_host() {
        let address = "/api/v1/artifacts/x/{kind}?a=b";
        assert_eq!(
            upload_address("http://h:1/p/", address, ArtifactKind::Exec),
            "http://h:1/p/api/v1/artifacts/x/exec?a=b"
        );
        let elsewhere = "https://s3/{kind}";
        assert_eq!(
            upload_address("http://h", elsewhere, ArtifactKind::Exec),
            "https://s3/exec"
        );
    }
}
