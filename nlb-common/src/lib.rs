//! The words that both sides share.
#![no_std]
