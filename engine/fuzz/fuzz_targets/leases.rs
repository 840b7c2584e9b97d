//! Arbitrary bytes at the door `Leases` of the engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    engine::fuzzing::Door::Leases.knock(bytes);
});
