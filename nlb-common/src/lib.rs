//! The words that nlb's packet program and its daemon share: the contract between kernel and
//! userspace, on one page.
//!
//! * [`wire`]: protocol headers as they stand in a frame.
//! * [`address`], [`listener`], [`target`], [`tunnel`], [`next_hop`], [`flow`], [`fragment`], [`ring`]: what the
//!   maps hold.
//! * [`quic`]: what leads a QUIC connection to its server.
//! * [`hash`]: the keyed hash that both sides compute.
//! * [`stop`], [`counter`], [`event`]: what the packet program tells.
//! * [`settings`]: constants patched in when the program is loaded.
//! * [`route`]: the words of the program that asks the kernel's routes for `nlb explain`.
//! * [`capture`]: the words of the programs that copy packets for `nlb capture`.
//! * [`decap`]: the words of the other program, which takes tunnels' headers off on targets.
//! * [`bench`]: the words of the benchmark.
//! * [`maps`]: every map's name, and the layout version of all of this.
//!
//! Records that the daemon changes while packets read them are made of [`word::Word`]s of
//! eight bytes. Both sides map the same memory, so each change is one store, and the order of stores
//! written down with each record is all the protocol there is: no packet sees half of a change.
//!
//! zerocopy proves the layout of every record: no padding, any bytes legal.
//!
//! No I/O and no policy here.
#![no_std]
#![deny(unsafe_code)]

pub mod address;
pub mod admission;
pub mod answer;
pub mod bench;
pub mod capture;
pub mod counter;
pub mod decap;
pub mod early;
pub mod event;
pub mod flow;
pub mod fragment;
pub mod hash;
pub mod listener;
pub mod maps;
pub mod next_hop;
#[cfg(feature = "user")]
pub mod plain;
pub mod pressure;
pub mod quic;
pub mod ring;
pub mod route;
pub mod sequence;
pub mod settings;
pub mod source;
pub mod stage;
pub mod stop;
pub mod target;
pub mod tick;
pub mod tunnel;
pub mod wire;
pub mod word;
