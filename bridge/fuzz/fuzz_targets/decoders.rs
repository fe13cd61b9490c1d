//! Every decoder of the bridge on bytes of a peer that lies: headers, invitation, handshake, names of spill files, settings.
//!
//! What must hold stands in `mitosis_bridge::fuzzing`; this file only feeds it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mitosis_bridge::fuzzing::decode(data));
