//! Arbitrary bytes at the door `ring_document`.
#![no_main]

#[path = "../doors.rs"]
mod doors;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    doors::knock("ring_document", bytes);
});
