//! Arbitrary bytes at the door `Record` of the engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    engine::fuzzing::Door::Record.knock(bytes);
});
