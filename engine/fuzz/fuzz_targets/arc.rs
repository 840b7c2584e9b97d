//! Arbitrary bytes at the door `Arc` of the engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    engine::fuzzing::Door::Arc.knock(bytes);
});
