//! The story of a packet.
#![no_std]
