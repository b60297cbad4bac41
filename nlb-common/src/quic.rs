//! Where a server's number stands in the QUIC connection IDs that it hands out.
//!
//! A client carries the ID that its server chose in every packet, whatever address it has by then
//! (RFC 9000 §5.1), so a number in it leads to the server. NLB's IDs have 17 bytes: one that says
//! how to read the rest, eight of the server's number (`QuicServerId`), eight of the server's own;
//! plaintext IDs of draft-ietf-quic-load-balancers look the same. Other lengths can be set.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    big_endian::{U16, U64},
};

/// Where the server's number stands, of a target group's connection IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CidLayout {
    /// Bytes of a connection ID, at most 20 (RFC 9000 §17.2).
    pub id_bytes: u8,
    /// Bytes of it in front of the server's number.
    pub server_id_offset_bytes: u8,
    /// Bytes of the server's number, 1 to 8.
    pub server_id_bytes: u8,
}

impl CidLayout {
    /// NLB's.
    pub const NLB: Self = Self {
        id_bytes: 17,
        server_id_offset_bytes: 1,
        server_id_bytes: 8,
    };

    /// Bytes of the longest connection ID of QUIC version 1.
    pub const LONGEST_ID_BYTES: u8 = 20;

    /// The layout as a listener's word; never 0.
    pub const fn to_word(self) -> u64 {
        self.id_bytes as u64
            | (self.server_id_offset_bytes as u64) << 8
            | (self.server_id_bytes as u64) << 16
    }

    /// The layout in a listener's word, if there is one that can be read.
    #[inline(always)]
    pub const fn of_word(word: u64) -> Option<Self> {
        let [
            id_bytes,
            server_id_offset_bytes,
            server_id_bytes,
            0,
            0,
            0,
            0,
            0,
        ] = word.to_le_bytes()
        else {
            return None;
        };
        if server_id_bytes == 0
            || server_id_bytes > 8
            || id_bytes > Self::LONGEST_ID_BYTES
            || server_id_offset_bytes > Self::LONGEST_ID_BYTES
            || server_id_offset_bytes + server_id_bytes > id_bytes
        {
            return None;
        }
        Some(Self {
            id_bytes,
            server_id_offset_bytes,
            server_id_bytes,
        })
    }

    /// The largest number that fits.
    #[inline(always)]
    pub const fn largest_server_id(self) -> u64 {
        u64::MAX >> (64 - self.server_id_bytes as u32 * 8)
    }
}

/// A server's number among the targets that a ring leads to: the key of `SERVER_IDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServerIdKey {
    /// The number.
    pub server_id: U64,
    /// The ring: a target group's, or that of a listener with several.
    pub ring: U16,
    /// No meaning; zero, because hash maps compare every byte.
    pub zero: [u8; 6],
}

impl ServerIdKey {
    /// A number, and the ring that it is looked for under.
    #[inline(always)]
    pub const fn new(ring: u16, server_id: u64) -> Self {
        Self {
            server_id: U64::new(server_id),
            ring: U16::new(ring),
            zero: [0; 6],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_reads_back_and_one_that_reaches_beyond_the_id_is_none() {
        assert_eq!(
            CidLayout::of_word(CidLayout::NLB.to_word()),
            Some(CidLayout::NLB)
        );
        assert_eq!(CidLayout::of_word(0), None);
        for broken in [
            CidLayout {
                server_id_offset_bytes: 10,
                ..CidLayout::NLB
            },
            CidLayout {
                server_id_bytes: 9,
                ..CidLayout::NLB
            },
            CidLayout {
                id_bytes: 21,
                ..CidLayout::NLB
            },
        ] {
            assert_eq!(CidLayout::of_word(broken.to_word()), None);
        }
        assert_eq!(CidLayout::of_word(u64::MAX), None);
    }

    #[test]
    fn the_largest_server_id_fills_its_bytes() {
        assert_eq!(CidLayout::NLB.largest_server_id(), u64::MAX);
        let one = CidLayout {
            server_id_bytes: 1,
            ..CidLayout::NLB
        };
        assert_eq!(one.largest_server_id(), 255);
    }
}
