//! Fixed-layout headers that travel in front of every payload, and their validation.
//!
//! They are the user headers of the transport's chunks: all integers, no padding, every bit pattern is a value, so that
//! reading one from a misbehaving peer cannot be undefined; what it *means* is checked by [`RequestHeader::check`] and
//! [`ResponseHeader::check`]. Payloads are opaque bytes.

use iceoryx2::prelude::ZeroCopySend;

use crate::handover::FetchWish;
use crate::ids::Incarnation;

/// Version of headers, handshake and shared layouts. Peers of different versions refuse each other.
pub const PROTOCOL_VERSION: u16 = 2;

/// Longest payload of any frame, spill files included.
pub const MAX_PAYLOAD: usize = 4 << 20;
/// Longest payload of a fetch answer inside shared memory; longer ones go through a spill file.
pub(crate) const FETCH_ANSWER_SLICE: usize = 64 << 10;
/// Payload room of a fetch request, which carries none.
pub(crate) const FETCH_REQUEST_SLICE: usize = 1 << 10;
/// Longest report inside shared memory; longer ones go through a spill file.
pub(crate) const REPORT_SLICE: usize = 16 << 10;
/// Longest report answer inside shared memory; longer ones go through a spill file.
pub(crate) const REPORT_ANSWER_SLICE: usize = 4 << 10;
/// Longest echo: the poller answers it itself and writes no file.
pub const MAX_ECHO: usize = 1 << 10;
/// Longest control state. It has no spill file: a reader must have it before the fetch answer behind it.
pub const MAX_CONTROL: usize = 64 << 10;

/// The two services of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Ask for work; answered when there is some (long poll).
    Fetch,
    /// Tell something; answered with an acknowledgement.
    Report,
}

impl Operation {
    /// Both, in the order of [`Operation::index`].
    pub const ALL: [Self; 2] = [Self::Fetch, Self::Report];

    /// Position in tables by operation.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Fetch => 0,
            Self::Report => 1,
        }
    }

    /// Label value and part of the service name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Report => "report",
        }
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Fetch,
    Report,
    Hello,
    Bye,
    /// Send the payload back, without anybody behind the poller.
    Echo,
}

impl RequestKind {
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::Fetch => 1,
            Self::Report => 2,
            Self::Hello => 3,
            Self::Bye => 4,
            Self::Echo => 5,
        }
    }

    fn from_code(code: u16) -> Option<Self> {
        [
            Self::Fetch,
            Self::Report,
            Self::Hello,
            Self::Bye,
            Self::Echo,
        ]
        .into_iter()
        .find(|kind| kind.code() == code)
    }
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// Payload of the other side's caller.
    Reply,
    /// The long poll ended without work.
    Empty,
    /// No more work: leave.
    Draining,
    /// The request was taken and dropped unanswered.
    Abandoned,
    /// The frame or its sender was refused; the payload says why.
    Refused,
    /// The handshake succeeded.
    Welcome,
    /// The goodbye was heard and nothing of the sender is unread.
    Farewell,
}

impl AnswerKind {
    const ALL: [Self; 7] = [
        Self::Reply,
        Self::Empty,
        Self::Draining,
        Self::Abandoned,
        Self::Refused,
        Self::Welcome,
        Self::Farewell,
    ];

    pub(crate) fn code(self) -> u16 {
        match self {
            Self::Reply => 1,
            Self::Empty => 2,
            Self::Draining => 3,
            Self::Abandoned => 4,
            Self::Refused => 5,
            Self::Welcome => 6,
            Self::Farewell => 7,
        }
    }

    fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// The payload names a spill file instead of being the data.
const SPILL: u32 = 1;

/// In front of every request of a worker.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ZeroCopySend)]
#[repr(C)]
#[type_name("mitosis.bridge.RequestHeader")]
pub(crate) struct RequestHeader {
    pub(crate) version: u16,
    pub(crate) kind: u16,
    pub(crate) flags: u32,
    /// Bytes of the data, in the payload or in the spill file.
    pub(crate) len: u32,
    /// Of a fetch: what it asks for, see [`RequestHeader::wish`].
    pub(crate) wish: u32,
    pub(crate) incarnation: u64,
    /// Echoed by the answer.
    pub(crate) correlation: u64,
    /// Key of the last hand-over that the worker received; 0 for none.
    pub(crate) confirms: u64,
}

/// In front of every answer of the manager.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ZeroCopySend)]
#[repr(C)]
#[type_name("mitosis.bridge.ResponseHeader")]
pub(crate) struct ResponseHeader {
    pub(crate) version: u16,
    pub(crate) kind: u16,
    pub(crate) flags: u32,
    /// Bytes of the data, in the payload or in the spill file.
    pub(crate) len: u32,
    /// State word of the hand-over in this answer, where its bytes lie in a file; others name theirs in the payload.
    pub(crate) word: u32,
    pub(crate) incarnation: u64,
    pub(crate) correlation: u64,
    /// Key of the hand-over in this answer; 0 for none.
    pub(crate) key: u64,
    /// How long the request was parked, in nanoseconds: the worker subtracts it from its round trip.
    pub(crate) parked_ns: u64,
    /// Clock reading when it was sent, to recognize a wake-up that was lost.
    pub(crate) sent_ns: u64,
}

/// In front of every control state.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ZeroCopySend)]
#[repr(C)]
#[type_name("mitosis.bridge.ControlHeader")]
pub(crate) struct ControlHeader {
    pub(crate) version: u16,
    pub(crate) reserved: u16,
    pub(crate) len: u32,
    pub(crate) sequence: u64,
}

/// Why a frame is refused. The text travels to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameFault {
    #[error(
        "bridge protocol version {theirs} is not {PROTOCOL_VERSION}: start both from one build"
    )]
    Version { theirs: u16 },
    #[error("the frame belongs to incarnation {theirs}, this connection to {ours}")]
    Incarnation {
        theirs: Incarnation,
        ours: Incarnation,
    },
    #[error("unknown frame kind {code}")]
    Kind { code: u16 },
    #[error(
        "frame length {len} does not fit its payload of {room} bytes or the limit of {MAX_PAYLOAD}"
    )]
    Length { len: u32, room: usize },
    #[error("frames of kind {code} carry their data themselves, not in a file")]
    Elsewhere { code: u16 },
}

/// A header that was checked. What it says about its data is private: bytes come out of [`Checked::content`] alone, which
/// cannot reach beyond the payload that it is given, whatever the peer wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checked<K> {
    pub(crate) kind: K,
    len: usize,
    spilled: bool,
}

/// Where the data of a checked frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Inline(&'a [u8]),
    /// In a file of this name, with so many bytes.
    Spilled {
        name: &'a [u8],
        len: usize,
    },
}

impl<K> Checked<K> {
    /// The data, never more than `payload`.
    pub(crate) fn content<'a>(&self, payload: &'a [u8]) -> Content<'a> {
        if self.spilled {
            let name = payload;
            return Content::Spilled {
                name,
                len: self.len,
            };
        }
        // The check has compared the length with this payload; a shorter one yields what it has.
        Content::Inline(payload.get(..self.len).unwrap_or(payload))
    }

    /// The data of a kind that has no file; nothing of one that has.
    pub(crate) fn inline<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        match self.content(payload) {
            Content::Inline(data) => data,
            Content::Spilled { .. } => &[],
        }
    }
}

impl RequestHeader {
    pub(crate) fn new(kind: RequestKind, incarnation: Incarnation) -> Self {
        Self {
            version: PROTOCOL_VERSION,
            kind: kind.code(),
            incarnation: incarnation.0,
            ..Self::default()
        }
    }

    pub(crate) fn with_data(mut self, len: usize, spilled: bool) -> Self {
        (self.len, self.flags) = data_fields(len, spilled);
        self
    }

    /// Says what a fetch asks for.
    pub(crate) fn with_wish(mut self, wish: FetchWish) -> Self {
        self.wish = u32::from(wish.room) | u32::from(wish.idle) << 16;
        self
    }

    /// What a fetch asks for; any bits mean something.
    pub(crate) fn wish(&self) -> FetchWish {
        let [low, high, idle, _] = self.wish.to_le_bytes();
        FetchWish {
            room: u16::from_le_bytes([low, high]),
            idle: idle != 0,
        }
    }

    /// Validates everything that does not need state, against a payload of `room` bytes.
    pub(crate) fn check(
        &self,
        ours: Incarnation,
        room: usize,
    ) -> Result<Checked<RequestKind>, FrameFault> {
        check_version(self.version)?;
        let kind = RequestKind::from_code(self.kind).ok_or(FrameFault::Kind { code: self.kind })?;
        check_incarnation(self.incarnation, ours)?;
        let may_spill = matches!(kind, RequestKind::Report | RequestKind::Echo);
        check_place(self.kind, self.flags, may_spill)?;
        check_data(kind, self.len, self.flags, room)
    }
}

impl ResponseHeader {
    pub(crate) fn answer(kind: AnswerKind, request: &RequestHeader) -> Self {
        Self {
            version: PROTOCOL_VERSION,
            kind: kind.code(),
            incarnation: request.incarnation,
            correlation: request.correlation,
            ..Self::default()
        }
    }

    pub(crate) fn with_data(mut self, len: usize, spilled: bool) -> Self {
        (self.len, self.flags) = data_fields(len, spilled);
        self
    }

    /// Validates everything that does not need state, against a payload of `room` bytes.
    pub(crate) fn check(
        &self,
        ours: Incarnation,
        room: usize,
    ) -> Result<Checked<AnswerKind>, FrameFault> {
        let kind = AnswerKind::from_code(self.kind).ok_or(FrameFault::Kind { code: self.kind })?;
        // A refusal must be readable across versions: its text is what tells the operator about the mismatch.
        if kind != AnswerKind::Refused {
            check_version(self.version)?;
            check_incarnation(self.incarnation, ours)?;
        }
        check_place(self.kind, self.flags, kind == AnswerKind::Reply)?;
        check_data(kind, self.len, self.flags, room)
    }
}

impl ControlHeader {
    pub(crate) fn new(sequence: u64, len: usize) -> Self {
        Self {
            version: PROTOCOL_VERSION,
            reserved: 0,
            len: data_fields(len, false).0,
            sequence,
        }
    }

    /// The state in its payload.
    pub(crate) fn state<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], FrameFault> {
        check_version(self.version)?;
        Ok(check_data((), self.len, 0, payload.len())?.inline(payload))
    }
}

fn data_fields(len: usize, spilled: bool) -> (u32, u32) {
    let len =
        u32::try_from(len).expect("payloads are limited to MAX_PAYLOAD before a frame is built");
    (len, if spilled { SPILL } else { 0 })
}

fn check_version(theirs: u16) -> Result<(), FrameFault> {
    if theirs == PROTOCOL_VERSION {
        Ok(())
    } else {
        Err(FrameFault::Version { theirs })
    }
}

fn check_incarnation(theirs: u64, ours: Incarnation) -> Result<(), FrameFault> {
    let theirs = Incarnation(theirs);
    if theirs == ours {
        Ok(())
    } else {
        Err(FrameFault::Incarnation { theirs, ours })
    }
}

/// Only what the two callers send travels in files.
fn check_place(code: u16, flags: u32, may_spill: bool) -> Result<(), FrameFault> {
    if flags & SPILL != 0 && !may_spill {
        return Err(FrameFault::Elsewhere { code });
    }
    Ok(())
}

fn check_data<K>(kind: K, len: u32, flags: u32, room: usize) -> Result<Checked<K>, FrameFault> {
    let spilled = flags & SPILL != 0;
    let fault = FrameFault::Length { len, room };
    let bytes = usize::try_from(len).map_err(|_| fault)?;
    if bytes > MAX_PAYLOAD || (!spilled && bytes > room) {
        return Err(fault);
    }
    Ok(Checked {
        kind,
        len: bytes,
        spilled,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: Incarnation = Incarnation(7);

    fn report(len: usize) -> RequestHeader {
        RequestHeader::new(RequestKind::Report, OURS).with_data(len, false)
    }

    #[test]
    fn a_well_formed_request_is_accepted() {
        let checked = report(5).check(OURS, 5).unwrap();
        assert_eq!(checked.kind, RequestKind::Report);
        assert_eq!(checked.content(b"hello"), Content::Inline(b"hello"));
    }

    #[test]
    fn version_is_checked_before_anything_else() {
        let header = RequestHeader {
            version: 9,
            kind: 99,
            incarnation: 0,
            ..report(5)
        };
        let refusal = header.check(OURS, 0).unwrap_err();
        assert_eq!(refusal, FrameFault::Version { theirs: 9 });
        assert!(refusal.to_string().contains("version 9 is not 2"));
    }

    #[test]
    fn a_frame_of_another_life_is_refused() {
        let refusal = report(0).check(Incarnation(8), 0).unwrap_err();
        assert!(matches!(refusal, FrameFault::Incarnation { .. }));
    }

    #[test]
    fn a_length_beyond_the_payload_is_refused_unless_it_is_spilled() {
        assert!(report(6).check(OURS, 5).is_err());
        let spilled = report(0).with_data(100_000, true);
        let (name, len) = (&b"abcde"[..], 100_000);
        let checked = spilled.check(OURS, 5).unwrap();
        assert_eq!(checked.content(name), Content::Spilled { name, len });
        assert_eq!(checked.inline(name), b"");
        let giant = RequestHeader {
            len: u32::MAX,
            ..spilled
        };
        assert!(giant.check(OURS, 5).is_err());
    }

    #[test]
    fn only_what_callers_send_may_be_in_a_file() {
        for kind in [RequestKind::Hello, RequestKind::Bye, RequestKind::Fetch] {
            let header = RequestHeader::new(kind, OURS).with_data(100_000, true);
            let refusal = header.check(OURS, 5).unwrap_err();
            assert_eq!(refusal, FrameFault::Elsewhere { code: kind.code() });
        }
        let refused = ResponseHeader::answer(AnswerKind::Refused, &report(0)).with_data(9, true);
        assert!(refused.check(OURS, 5).is_err());
    }

    #[test]
    fn a_payload_shorter_than_the_checked_one_yields_what_it_has() {
        let checked = report(5).check(OURS, 5).unwrap();
        assert_eq!(checked.inline(b"abc"), b"abc");
    }

    #[test]
    fn a_refusal_is_readable_across_versions() {
        let answer = ResponseHeader {
            version: PROTOCOL_VERSION + 1,
            ..ResponseHeader::answer(AnswerKind::Refused, &report(0))
        };
        assert_eq!(answer.check(OURS, 0).unwrap().kind, AnswerKind::Refused);
        let other = ResponseHeader {
            version: PROTOCOL_VERSION + 1,
            ..ResponseHeader::answer(AnswerKind::Reply, &report(0))
        };
        assert!(other.check(OURS, 0).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_yield_a_length_beyond_the_room(
            version in prop_oneof![Just(PROTOCOL_VERSION), any::<u16>()],
            kind in 0_u16..10, flags in 0_u32..4, len in any::<u32>(), incarnation in 0_u64..9, room in 0_usize..100_000,
        ) {
            let request = RequestHeader { version, kind, flags, len, incarnation, ..RequestHeader::default() };
            let response = ResponseHeader { version, kind, flags, len, incarnation, ..ResponseHeader::default() };
            let payload = vec![7_u8; room];
            let within = |content| match content {
                Content::Inline(data) => u32::try_from(data.len()) == Ok(len),
                Content::Spilled { name, len } => name.len() == room && len <= MAX_PAYLOAD,
            };
            if let Ok(checked) = request.check(OURS, room) {
                prop_assert!(within(checked.content(&payload)));
                prop_assert_eq!(incarnation, OURS.0);
            }
            if let Ok(checked) = response.check(OURS, room) {
                prop_assert!(within(checked.content(&payload)));
            }
            let control = ControlHeader { version, len, ..ControlHeader::default() };
            if let Ok(state) = control.state(&payload) {
                prop_assert!(within(Content::Inline(state)) && version == PROTOCOL_VERSION);
            }
        }
    }
}
