//! Arbitrary bytes at the door `RunPage` of the engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    engine::fuzzing::Door::RunPage.knock(bytes);
});
