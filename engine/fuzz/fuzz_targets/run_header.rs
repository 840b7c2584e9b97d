//! Arbitrary bytes at the door `RunHeader` of the engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    engine::fuzzing::Door::RunHeader.knock(bytes);
});
