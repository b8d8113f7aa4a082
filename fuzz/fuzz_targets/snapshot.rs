//! Fuzzes [`berth_fuzz::routing::snapshot`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| berth_fuzz::routing::snapshot(input));
