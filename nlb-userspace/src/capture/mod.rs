//! `nlb capture`: packets as they came in and as they left, with what became of them and why, as a file that
//! Wireshark reads.
//!
//! [`wish`] says which packets are meant, [`whose`] tells listener and target, [`told`] says what became of a
//! packet, [`exits`] where it left, and [`file`] writes it down. The copies come from
//! [`dataplane::capture`](crate::dataplane::capture).

pub mod exits;
pub mod file;
pub mod told;
pub mod whose;
pub mod wish;

use nlb_common::{
    capture::{Captured, Length},
    stop::Stop,
};
use zerocopy::FromBytes as _;

/// A packet, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'r> {
    /// When it had left, by the clock that counts from boot.
    pub at_ns: u64,
    /// The index of the interface that it came in through.
    pub interface: u32,
    /// What the packet program returned.
    pub action: Action,
    /// Why it was stopped, if it was; the first reason is why it ended.
    pub stops: Vec<Stop>,
    /// As it came in.
    pub came: Piece<'r>,
    /// As it left, if it did.
    pub left: Option<Piece<'r>>,
}

/// What there is of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'r> {
    /// Its first bytes.
    pub bytes: &'r [u8],
    /// How many it had.
    pub frame_bytes: u32,
}

/// What the packet program returned: `enum xdp_action` of `linux/bpf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `XDP_ABORTED`, or a number that has no meaning.
    Abort,
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`.
    Pass,
    /// `XDP_TX`.
    Transmit,
    /// `XDP_REDIRECT`.
    Redirect,
}

impl Action {
    const fn of(number: u32) -> Self {
        match number {
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Transmit,
            4 => Self::Redirect,
            _ => Self::Abort,
        }
    }
}

impl<'r> Packet<'r> {
    /// Reads a record of the ring buffer; none if it is shorter than it says.
    pub fn read(record: &'r [u8]) -> Option<Self> {
        let (head, bytes) = Captured::read_from_prefix(record).ok()?;
        let (came, bytes) = piece(head.came, bytes)?;
        let (left, _) = piece(head.left, bytes)?;
        let stops = (0..).zip(Stop::ALL);
        let stops = stops.filter(|(number, _)| head.stops >> number & 1 == 1);
        Some(Self {
            at_ns: head.at_ns,
            interface: head.interface,
            action: Action::of(head.action),
            stops: in_order(stops.map(|(_, stop)| *stop).collect()),
            came,
            left: (!left.bytes.is_empty()).then_some(left),
        })
    }
}

fn piece(length: Length, bytes: &[u8]) -> Option<(Piece<'_>, &[u8])> {
    let kept = usize::try_from(length.kept_bytes).ok()?;
    let (bytes, rest) = bytes.split_at_checked(kept)?;
    let frame_bytes = length.frame_bytes;
    Some((Piece { bytes, frame_bytes }, rest))
}

/// Puts those reasons last that are only counted beside another one.
fn in_order(mut stops: Vec<Stop>) -> Vec<Stop> {
    stops.sort_by_key(|stop| matches!(stop, Stop::ErrorLimit | Stop::EarlyLimit));
    stops
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    fn record() -> Vec<u8> {
        let head = Captured {
            at_ns: 5,
            stops: 1 << Stop::ErrorLimit as u64
                | 1 << Stop::EarlyLimit as u64
                | 1 << Stop::TooBig as u64,
            action: 3,
            interface: 7,
            came: Length {
                kept_bytes: 3,
                frame_bytes: 9,
            },
            left: Length {
                kept_bytes: 2,
                frame_bytes: 2,
            },
        };
        [head.as_bytes(), &[1, 2, 3, 4, 5]].concat()
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_the_reason_that_ends_a_packet_comes_first() {
        let record = record();
        let packet = Packet::read(&record).unwrap();
        assert_eq!(packet.stops[0], Stop::TooBig);
        assert_eq!(packet.stops.len(), 3);
        assert_eq!((packet.interface, packet.action), (7, Action::Transmit));
        assert_eq!(packet.came.bytes, [1, 2, 3]);
        assert_eq!(packet.came.frame_bytes, 9);
        assert_eq!(packet.left.unwrap().bytes, [4, 5]);
    }

    #[test]
    fn a_record_that_is_cut_short_is_none() {
        let record = record();
        for length in 0..record.len() {
            assert_eq!(Packet::read(&record[..length]), None);
        }
    }
}
