//! A target group's tunnel: what the outer headers say in the modes that wrap packets.

use zerocopy::big_endian::U16;

use crate::{
    address::Address,
    target::Mode,
    wire::{self, protocol},
    word::Word,
};

/// What the outer headers of a target group say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Where outer IPv4 packets come from; [`Address::UNSPECIFIED`] if there are none.
    pub source_v4: Address,
    /// Where outer IPv6 packets come from; [`Address::UNSPECIFIED`] if there are none.
    pub source_v6: Address,
    /// Which bits of the last four bytes of `source_v4`, zero there, a flow's hash fills in.
    pub spread_v4: [u8; 4],
    /// The same of the last eight bytes of `source_v6`.
    pub spread_v6: [u8; 8],
    /// Which UDP port the targets decapsulate on.
    pub port: U16,
    /// Geneve's virtual network identifier, in network order.
    pub network: [u8; 3],
    /// Whether UDP source port and flow label are a flow's own.
    pub has_entropy: bool,
}

/// One version's half of a [`Tunnel`], as the packet path takes it.
///
/// VERIFIER: whole words, because it lies on the stack, and LLVM copies smaller fields in pieces that
/// straddle words ("misaligned stack access off -83 size 2"; Linux 6.18, rustc 1.96).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelEnd {
    /// Where outer packets come from.
    pub source: Address,
    /// Which bits of the last word of `source`, as it stands in memory, a flow's hash fills in.
    pub spread: u64,
    /// The control word of the slot.
    control: u64,
}

impl TunnelEnd {
    /// Which UDP port the targets decapsulate on.
    #[inline(always)]
    pub const fn port(&self) -> U16 {
        let [_, _, low, high, ..] = self.control.to_le_bytes();
        U16::from_bytes(u16::from_le_bytes([low, high]).to_ne_bytes())
    }

    /// Geneve's virtual network identifier, in network order.
    #[inline(always)]
    pub const fn network(&self) -> [u8; 3] {
        let [_, _, _, _, first, second, third, _] = self.control.to_le_bytes();
        [first, second, third]
    }

    /// Whether UDP source port and flow label are a flow's own.
    #[inline(always)]
    pub const fn has_entropy(&self) -> bool {
        self.control & ENTROPY != 0
    }
}

/// A tunnel's record, by target group id.
///
/// A reader that finds `control` invalid, or changed while it read, stops its packet; so a writer
/// invalidates first and validates last, and nobody waits for anybody.
#[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C, align(64))]
pub struct TunnelSlot {
    /// epoch (low 8 bits), 1 in bit 8: valid, 1 in bit 9: entropy, UDP port (raw, 16–31), virtual
    /// network (32–55)
    control: Word,
    /// source (raw, low 32 bits), spread (raw, high 32 bits)
    v4: Word,
    source_v6: [Word; 2],
    /// of the second word of the source
    spread_v6: Word,
    /// No meaning, zero.
    zero: [Word; 3],
}

const VALID: u64 = 1 << 8;
const ENTROPY: u64 = 1 << 9;

impl TunnelSlot {
    /// Puts a tunnel in.
    pub fn write(&self, tunnel: &Tunnel) {
        let epoch = (self.control.load() + 1) & 0xff;
        self.control.store(epoch);
        let source = u32::from_ne_bytes(tunnel.source_v4.v4_bytes());
        let spread = u32::from_ne_bytes(tunnel.spread_v4);
        self.v4.store(u64::from(source) | u64::from(spread) << 32);
        self.source_v6[0].store(tunnel.source_v6.words[0]);
        self.source_v6[1].store(tunnel.source_v6.words[1]);
        self.spread_v6.store(u64::from_ne_bytes(tunnel.spread_v6));
        let [a, b, c] = tunnel.network;
        let port = u16::from_ne_bytes(tunnel.port.to_bytes());
        let mut control = epoch | VALID | u64::from(port) << 16;
        control |= u64::from(u32::from_le_bytes([a, b, c, 0])) << 32;
        if tunnel.has_entropy {
            control |= ENTROPY;
        }
        self.control.store(control);
    }

    /// The half for outer packets of one version; nothing if the record, or that half of it, was
    /// not written, or is being changed.
    #[inline(always)]
    pub fn end(&self, is_v4: bool) -> Option<TunnelEnd> {
        let control = self.control.load();
        if control & VALID == 0 {
            return None;
        }
        let (source, spread) = if is_v4 {
            let [a, b, c, d, e, f, g, h] = self.v4.load().to_ne_bytes();
            let source = Address::from_v4_bytes([a, b, c, d]);
            (source, u64::from_ne_bytes([0, 0, 0, 0, e, f, g, h]))
        } else {
            let words = [self.source_v6[0].load(), self.source_v6[1].load()];
            (Address { words }, self.spread_v6.load())
        };
        if self.control.load() != control {
            return None;
        }
        Some(TunnelEnd {
            source,
            spread,
            control,
        })
    }

    /// Both halves.
    pub fn read(&self) -> Option<Tunnel> {
        let (v4, v6) = (self.end(true)?, self.end(false)?);
        let [.., a, b, c, d] = v4.spread.to_ne_bytes();
        let none = Address::from_v4_bytes([0; 4]);
        Some(Tunnel {
            source_v4: if v4.source == none {
                Address::UNSPECIFIED
            } else {
                v4.source
            },
            source_v6: v6.source,
            spread_v4: [a, b, c, d],
            spread_v6: v6.spread.to_ne_bytes(),
            port: v6.port(),
            network: v6.network(),
            has_entropy: v6.has_entropy(),
        })
    }
}

/// Bytes of a header.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "headers are short, as the assertion says"
)]
const fn bytes_of<H>() -> u16 {
    const { assert!(size_of::<H>() < 64) };
    size_of::<H>() as u16
}

impl Mode {
    /// Whether packets reach the target inside of other packets.
    #[inline(always)]
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::DSR_IPIP | Self::DSR_GUE | Self::DSR_GENEVE)
    }

    /// As what outer packets reach a target: by which protocols, and, of UDP, at which port.
    pub const fn arrivals(self, port: U16) -> [(u8, U16); 2] {
        if matches!(self, Self::DSR_IPIP) {
            [(protocol::IPV4, U16::ZERO), (protocol::IPV6, U16::ZERO)]
        } else {
            [(protocol::UDP, port); 2]
        }
    }

    /// How many bytes the mode puts in front of a packet whose target has an IPv4 address, or an
    /// IPv6 address.
    #[inline(always)]
    pub const fn overhead_bytes(self, target_is_v4: bool) -> u16 {
        let network = if target_is_v4 {
            bytes_of::<wire::ipv4::Ipv4>()
        } else {
            bytes_of::<wire::ipv6::Ipv6>()
        };
        let shim = match self {
            Self::DSR_IPIP => 0,
            Self::DSR_GUE => bytes_of::<wire::udp::Udp>() + bytes_of::<wire::gue::Gue>(),
            Self::DSR_GENEVE => bytes_of::<wire::udp::Udp>() + bytes_of::<wire::geneve::Geneve>(),
            _ => return 0,
        };
        network + shim
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    const TUNNEL: Tunnel = Tunnel {
        source_v4: Address::from_v4_bytes([10, 1, 2, 0]),
        source_v6: Address::from_v6_bytes([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]),
        spread_v4: [0, 0, 0, 0xff],
        spread_v6: [0; 8],
        port: U16::new(6080),
        network: [1, 2, 3],
        has_entropy: true,
    };

    #[test]
    fn a_tunnel_reads_back_what_was_written() {
        let slot = TunnelSlot::default();
        assert_eq!(slot.read(), None);
        slot.write(&TUNNEL);
        assert_eq!(slot.read(), Some(TUNNEL));
        let other = Tunnel {
            source_v4: Address::UNSPECIFIED,
            spread_v4: [0; 4],
            has_entropy: false,
            ..TUNNEL
        };
        slot.write(&other);
        assert_eq!(slot.read(), Some(other));
    }

    #[test]
    fn each_version_has_a_half_of_its_own() {
        let slot = TunnelSlot::default();
        slot.write(&TUNNEL);
        let v4 = slot.end(true).map(|end| IpAddr::from(end.source));
        assert_eq!(v4, Some(IpAddr::from([10, 1, 2, 0])));
        assert_eq!(
            slot.end(false).map(|end| end.source),
            Some(TUNNEL.source_v6)
        );
    }

    #[test]
    fn the_overhead_is_that_of_the_headers() {
        let bytes = |mode: Mode| [mode.overhead_bytes(true), mode.overhead_bytes(false)];
        assert_eq!(bytes(Mode::NAT), [0, 0]);
        assert_eq!(bytes(Mode::DSR_L2), [0, 0]);
        assert_eq!(bytes(Mode::DSR_IPIP), [20, 40]);
        assert_eq!(bytes(Mode::DSR_GUE), [32, 52]);
        assert_eq!(bytes(Mode::DSR_GENEVE), [36, 56]);
    }
}
