//! TCP segments of our own: the frame in hand becomes one, from its IP header on.
//!
//! Where it goes is the caller's: [`crate::answer`] sends it back, [`crate::cookie`] on, too.

use nlb_common::{
    stop::Stop,
    wire::{
        protocol,
        tcp::{OPTION_SEGMENT_SIZE, Tcp, TcpByte, TcpOpening, TcpOption},
    },
};
use zerocopy::big_endian::{U16, U32};

use crate::{
    answer::{Upper, end_at, write_ip},
    checksum::Sum,
    frame::Frame,
    parse::Packet,
    rewrite::Endpoint,
};

/// What a segment of our own says.
pub(crate) struct Segment {
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
    pub(crate) sequence: U32,
    pub(crate) acknowledgement: U32,
    pub(crate) flags: u8,
    pub(crate) window: U16,
    pub(crate) tail: Tail,
}

/// What follows the fixed part of the header.
#[derive(Clone, Copy)]
pub(crate) enum Tail {
    /// Nothing.
    Nothing,
    /// The option that names the largest segment, in bytes.
    SegmentSize(u16),
    /// One byte of payload, zero, for a sequence number that its receiver has had.
    OldByte,
}

impl Segment {
    /// Makes the frame this segment; what stood there, IP options and extension headers included, is
    /// gone. The Ethernet header and its tags stay.
    #[inline(always)]
    pub(crate) fn write<F: Frame>(&self, frame: &mut F, packet: &Packet) -> Result<(), Stop> {
        let (words, option, bytes) = match self.tail {
            Tail::Nothing => (5, 0, 20),
            Tail::SegmentSize(size) => (6, size, 24),
            Tail::OldByte => (5, 0, 21),
        };
        let option = TcpOption {
            kind: OPTION_SEGMENT_SIZE,
            length: 4,
            value: U16::new(option),
        };
        let header = if packet.is_v4 { 20 } else { 40 };
        let at = packet.network.plus(header).ok_or(Stop::Malformed)?;
        end_at(frame, u16::from(at.0) + bytes)?;
        // VERIFIER: before what stands behind it, whose bounds check would make LLVM drop this one's.
        write_ip(
            frame,
            packet,
            self.source.address,
            self.destination.address,
            &Upper {
                protocol: protocol::TCP,
                class: 0,
                length_bytes: bytes,
            },
        )?;
        let mut tcp = Tcp {
            source_port: self.source.port,
            destination_port: self.destination.port,
            sequence: self.sequence,
            acknowledgement: self.acknowledgement,
            data_offset: words << 4,
            flags: self.flags,
            window: self.window,
            checksum: U16::ZERO,
            urgent: U16::ZERO,
        };
        let mut sum = Sum::default()
            .pseudo_header(
                self.source.address,
                self.destination.address,
                protocol::TCP,
                bytes,
            )
            .word(tcp.source_port)
            .word(tcp.destination_port)
            .long(tcp.sequence)
            .long(tcp.acknowledgement)
            .word(U16::from_bytes([tcp.data_offset, tcp.flags]))
            .word(tcp.window);
        if let Tail::SegmentSize(_) = self.tail {
            sum = sum
                .word(U16::from_bytes([option.kind, option.length]))
                .word(option.value);
        }
        tcp.checksum = sum.finish();
        let header = tcp;
        // VERIFIER: each written as a whole, or LLVM drops the bounds check of the header, because
        // that of what follows it says the same.
        match self.tail {
            Tail::Nothing => *frame.get_mut(at).ok_or(Stop::Malformed)? = header,
            Tail::SegmentSize(_) => {
                *frame.get_mut(at).ok_or(Stop::Malformed)? = TcpOpening {
                    header,
                    segment_size: option,
                };
            }
            Tail::OldByte => {
                *frame.get_mut(at).ok_or(Stop::Malformed)? = TcpByte { header, byte: 0 };
            }
        }
        Ok(())
    }
}
