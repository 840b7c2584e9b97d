//! Arbitrary bytes at the door `signed_block`.
#![no_main]

#[path = "../doors.rs"]
mod doors;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    doors::knock("signed_block", bytes);
});
