//! Fuzzes [`berth_fuzz::spec::manifest`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| berth_fuzz::spec::manifest(input));
