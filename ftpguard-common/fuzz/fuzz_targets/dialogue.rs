#![no_main]

#[path = "../properties/dialogue.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::check(data));
