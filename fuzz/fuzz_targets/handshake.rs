#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| homing::fuzzing::handshake(data));
