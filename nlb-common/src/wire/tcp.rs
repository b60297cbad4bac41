//! The TCP header (RFC 9293 §3.1).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    big_endian::{U16, U32},
};

/// The fixed part of the header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// The sender's port.
    pub source_port: U16,
    /// The receiver's port.
    pub destination_port: U16,
    /// Of the first byte of payload.
    pub sequence: U32,
    /// The next byte that the sender expects.
    pub acknowledgement: U32,
    /// Header length in words of 4 bytes (4 bits); the rest is reserved.
    pub data_offset: u8,
    /// SYN, ACK and the others.
    pub flags: u8,
    /// What the sender's buffer has room for.
    pub window: U16,
    /// Of pseudo-header, header and payload.
    pub checksum: U16,
    /// Where urgent data ends.
    pub urgent: U16,
}

/// A header with the one option of ours that a SYN has.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TcpOpening {
    /// The fixed part, which says that six words are header.
    pub header: Tcp,
    /// [`OPTION_SEGMENT_SIZE`].
    pub segment_size: TcpOption,
}

/// A header and one byte of payload.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TcpByte {
    /// The header.
    pub header: Tcp,
    /// The payload.
    pub byte: u8,
}

/// The sender has no more data.
pub const FIN: u8 = 1;
/// Opens a connection.
pub const SYN: u8 = 2;
/// Ends a connection at once.
pub const RST: u8 = 4;
/// The acknowledgement number counts.
pub const ACK: u8 = 16;

/// An option of at least four bytes, or the beginning of several (RFC 9293 §3.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TcpOption {
    /// What it says.
    pub kind: u8,
    /// Its bytes, these two among them; not there where it is [`OPTION_END`] or
    /// [`OPTION_NOTHING`].
    pub length: u8,
    /// The first of what it says.
    pub value: U16,
}

/// The list ends here.
pub const OPTION_END: u8 = 0;
/// One byte of nothing.
pub const OPTION_NOTHING: u8 = 1;
/// The largest segment that the sender takes, in bytes.
pub const OPTION_SEGMENT_SIZE: u8 = 2;
