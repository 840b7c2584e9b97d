//! Arbitrary bytes at the door `Expiries` of the engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    engine::fuzzing::Door::Expiries.knock(bytes);
});
