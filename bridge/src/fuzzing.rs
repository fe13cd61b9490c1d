//! What must hold for any bytes of a peer: the entry of the fuzz target, compiled for it alone.
//!
//! It calls the decoders as the pollers do and checks that nothing they accept reaches beyond what was sent. It opens no
//! port and no file but those below a directory that does not exist.

use std::path::Path;

use crate::config::PollConfig;
use crate::header::{Content, ControlHeader, MAX_PAYLOAD, RequestHeader, ResponseHeader};
use crate::ids::Incarnation;
use crate::invitation::{Hello, Letter};
use crate::root::TransportRoot;
use crate::spill::{Name, SpillDir};

/// Decodes the bytes as everything that they could be.
///
/// # Panics
/// When a decoder accepts what it must refuse.
pub fn decode(data: &[u8]) {
    let _decoded_or_refused = (Letter::decode(data).is_ok(), Hello::decode(data).is_ok());
    headers(data);
    let spill = SpillDir::new(Path::new("/nonexistent"));
    assert!(spill.open(data, data.len(), Name::Keep).is_err());
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(poll) = text.parse::<PollConfig>() {
            assert_eq!(poll.to_string().parse::<PollConfig>(), Ok(poll));
        }
        if let Ok(root) = TransportRoot::at(Path::new("/run"), text) {
            assert_eq!(root.path().parent(), Some(Path::new("/run")));
        }
    }
}

/// Fills each header with the bytes, whatever they are, and checks it against the rest of them.
fn headers(data: &[u8]) {
    let mut words = data.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let mut next = || words.next().unwrap_or_default();
    let (first, second, third) = (next(), next(), next());
    let half = |word: u64| u32::try_from(word & 0xffff_ffff).expect("32 bits");
    let quarter = |word: u64| u16::try_from(word & 0xffff).expect("16 bits");
    let (version, kind) = (quarter(first), quarter(first >> 16));
    let (flags, len) = (half(first >> 32), half(second));
    let ours = Incarnation(third);
    let room = data.len();
    let within = |content| match content {
        Content::Inline(inside) => inside.len() <= room,
        Content::Spilled { name, len } => {
            // As the pollers do with it.
            let spill = SpillDir::new(Path::new("/nonexistent"));
            spill.open(name, len, Name::Remove).is_err() && len <= MAX_PAYLOAD
        }
    };
    let request = RequestHeader {
        version,
        kind,
        flags,
        len,
        incarnation: next(),
        ..RequestHeader::default()
    };
    if let Ok(checked) = request.check(ours, room) {
        assert!(within(checked.content(data)) && request.incarnation == ours.0);
        let _decoded_or_refused = Hello::decode(checked.inline(data)).is_ok();
    }
    let response = ResponseHeader {
        version,
        kind,
        flags,
        len,
        incarnation: request.incarnation,
        ..ResponseHeader::default()
    };
    if let Ok(checked) = response.check(ours, room) {
        assert!(within(checked.content(data)));
    }
    let control = ControlHeader {
        version,
        len,
        ..ControlHeader::default()
    };
    if let Ok(state) = control.state(data) {
        assert!(within(Content::Inline(state)));
    }
}
