//! Any bytes through the packet path.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| nlb_tests::hostile::packet(bytes, &nlb_tests::world::tables()));
