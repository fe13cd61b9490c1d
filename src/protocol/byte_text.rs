//! Bytes as text and back: how a line, an argument, a variable or a path that is no UTF-8 travels in JSON, in the store and
//! over every link.
//!
//! A byte that is no part of a UTF-8 sequence is the character U+10FF00 + byte, in JSON `\udbff\udf` and the byte's two
//! digits: `\udbff\udfe9` is 0xE9. A text that really has one of these 128 characters, which stand for nothing, has it taken
//! apart the same way, so every sequence of bytes has one text and comes back unchanged. Any other text is itself. Whoever
//! reads an input makes texts, whoever calls the system makes bytes, nobody in between knows of it. Pure.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Character of the byte 0, which itself is never needed: a byte below 0x80 is UTF-8.
const BASE: u32 = 0x0010_FF00;
/// The characters that stand for bytes.
const BYTES: RangeInclusive<char> = '\u{10FF80}'..='\u{10FFFF}';
/// With it begins the UTF-8 of those characters and of few others.
const FIRST: u8 = 0xF4;

/// The text of some bytes.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&FIRST) => Cow::Borrowed(text),
        _ => Cow::Owned(escaped(bytes)),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match BYTES.contains(&letter) {
                true => text.extend(letter.encode_utf8(&mut [0; 4]).bytes().map(letter_of)),
                false => text.push(letter),
            }
        }
        text.extend(chunk.invalid().iter().copied().map(letter_of));
    }
    text
}

fn letter_of(byte: u8) -> char {
    char::from_u32(BASE + u32::from(byte)).expect("the last of them is the last character")
}

/// The text of a path, a word or a variable of the system's.
#[must_use]
pub fn of_os(text: &OsStr) -> Cow<'_, str> {
    of_bytes(text.as_bytes())
}

/// The byte that a character stands for.
#[must_use]
pub fn byte_of(letter: char) -> Option<u8> {
    let number = BYTES.contains(&letter).then(|| u32::from(letter) - BASE)?;
    u8::try_from(number).ok()
}

/// The bytes of a text.
#[must_use]
pub fn to_bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.as_bytes().contains(&FIRST) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for letter in text.chars() {
        match byte_of(letter) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// The same for a call of the system.
#[must_use]
pub fn to_os(text: &str) -> Cow<'_, OsStr> {
    match to_bytes(text) {
        Cow::Borrowed(bytes) => Cow::Borrowed(OsStr::from_bytes(bytes)),
        Cow::Owned(bytes) => Cow::Owned(OsString::from_vec(bytes)),
    }
}

/// The text for people: `\xE9` for the byte 0xE9.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.as_bytes().contains(&FIRST) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match byte_of(letter) {
            // Writing to a string cannot fail.
            Some(byte) => drop(write!(shown, "\\x{byte:02X}")),
            None => shown.push(letter),
        }
    }
    Cow::Owned(shown)
}

/// For fields that are paths: `#[serde(with = "byte_text::path")]`.
pub mod path {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Path, PathBuf, of_os, to_os};

    /// Writes the path's text.
    ///
    /// # Errors
    /// When the serializer fails.
    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&of_os(path.as_os_str()))
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When there is no text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(PathBuf::from(to_os(&text).into_owned()))
    }
}

/// For fields that may be a path.
pub mod optional_path {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{PathBuf, of_os, to_os};

    /// Writes the path's text, or nothing.
    ///
    /// # Errors
    /// When the serializer fails.
    pub fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = path.as_ref().map(|path| of_os(path.as_os_str()));
        text.serialize(serializer)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When there is another value.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(text.map(|text| PathBuf::from(to_os(&text).into_owned())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn utf8_is_itself_and_any_other_byte_has_a_character() {
        for text in ["", "a b", "Grüße", "\u{10FF7F}", "日本"] {
            assert_eq!(of_bytes(text.as_bytes()), text);
            assert_eq!(&*to_bytes(text), text.as_bytes());
        }
        let text = of_bytes(b"caf\xe9");
        assert_eq!(text, "caf\u{10FFE9}");
        assert_eq!(shown(&text), "caf\\xE9");
        let json: String = serde_json::from_str("\"caf\\udbff\\udfe9\"").unwrap();
        assert_eq!(json, text);
    }

    #[test]
    fn a_character_that_stands_for_a_byte_is_no_exception() {
        let odd = "\u{10FFE9}";
        assert_eq!(&*to_bytes(&of_bytes(odd.as_bytes())), odd.as_bytes());
        assert_ne!(of_bytes(odd.as_bytes()), odd);
    }

    proptest! {
        #[test]
        fn bytes_come_back_unchanged_and_no_two_have_one_text(
            one in proptest::collection::vec(any::<u8>(), 0..40), other in proptest::collection::vec(any::<u8>(), 0..40)
        ) {
            let texts = [of_bytes(&one), of_bytes(&other)];
            prop_assert_eq!(&*to_bytes(&texts[0]), &*one);
            prop_assert_eq!(one == other, texts[0] == texts[1]);
            let json = serde_json::to_string(&texts[0]).unwrap();
            let back: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&*to_bytes(&back), &*one);
        }

        #[test]
        fn paths_survive_every_link(name in proptest::collection::vec(1u8.., 1..20)) {
            #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
            struct Frame {
                #[serde(with = "path")]
                one: PathBuf,
                #[serde(with = "optional_path")]
                other: Option<PathBuf>,
            }
            let one = PathBuf::from(OsString::from_vec(name));
            let frame = Frame { other: Some(one.clone()), one };
            let packed = rmp_serde::to_vec_named(&frame).unwrap();
            prop_assert_eq!(&rmp_serde::from_slice::<Frame>(&packed).unwrap(), &frame);
            let json = serde_json::to_vec(&frame).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Frame>(&json).unwrap(), &frame);
        }
    }
}
