//! Fuzzes [`berth_fuzz::edge::request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| berth_fuzz::edge::request(input));
