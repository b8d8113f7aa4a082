//! Fuzzes [`berth_fuzz::source::compose`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| berth_fuzz::source::compose(input));
