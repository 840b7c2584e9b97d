//! Arbitrary bytes at the door `key`.
#![no_main]

#[path = "../doors.rs"]
mod doors;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    doors::knock("key", bytes);
});
