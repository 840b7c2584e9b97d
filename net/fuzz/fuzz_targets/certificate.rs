//! Arbitrary bytes at the door `certificate`.
#![no_main]

#[path = "../doors.rs"]
mod doors;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    doors::knock("certificate", bytes);
});
