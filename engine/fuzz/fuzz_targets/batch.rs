//! Arbitrary bytes at the door `Batch` of the engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    engine::fuzzing::Door::Batch.knock(bytes);
});
