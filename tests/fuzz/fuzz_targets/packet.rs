//! Any bytes through the packet path.
#![no_main]
use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use nlb_tests::hostile::Arena;

thread_local!(static ARENA: RefCell<Arena> = RefCell::default());

fuzz_target!(|bytes: &[u8]| ARENA.with_borrow_mut(|arena| arena.packet(bytes)));
