//! Protocol headers as they stand in a frame: bytes in network order, alignment 1, every bit
//! pattern legal. Numbers that a sender chooses are never enums.

pub mod ethernet;
pub mod geneve;
pub mod gue;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;

/// IP protocol numbers that the packet path knows.
pub mod protocol {
    /// ICMP for IPv4 (RFC 792).
    pub const ICMP: u8 = 1;
    /// An IPv4 packet inside (RFC 2003, RFC 2473).
    pub const IPV4: u8 = 4;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// An IPv6 packet inside (RFC 2473, RFC 4213).
    pub const IPV6: u8 = 41;
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
}
