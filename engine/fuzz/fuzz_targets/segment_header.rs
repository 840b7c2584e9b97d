//! Arbitrary bytes at the door `SegmentHeader` of the engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    engine::fuzzing::Door::SegmentHeader.knock(bytes);
});
