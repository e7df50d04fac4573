#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| homing::fuzzing::client_frames(data));
