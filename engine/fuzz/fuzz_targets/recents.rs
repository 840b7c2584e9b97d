//! Arbitrary bytes at the door `Recents` of the engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    engine::fuzzing::Door::Recents.knock(bytes);
});
