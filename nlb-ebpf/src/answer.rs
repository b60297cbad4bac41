//! Packets of our own: the frame in hand becomes an answer to its sender, and leaves the way it
//! came.
//!
//! Two kinds. A TCP reset says the least that RFC 9293 §3.10.7.1 asks for, and comes from whom the
//! segment was for. An ICMP error comes from the VIP, which both ends know, and quotes the first
//! [`QUOTE_BYTES`] of the packet as it came: RFC 792 asks for the header and 8 bytes, RFC 1812
//! §4.3.2.3 and RFC 4443 would like more; 128 is what RFC 4884 counts on, and holds the longest
//! headers that IPv4 and TCP can have.
//!
//! Resets are never larger than the segment that they answer, and no more numerous; they are not
//! limited. ICMP errors are, per CPU and tick. No error follows an ICMP message or a later
//! fragment, because such packets never come here; nor what was sent to a group or broadcast, or
//! from an address that nobody has (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
//!
//! A segment's checksum is not verified before it is answered: that would mean reading all of it.

use nlb_common::{
    address::Address,
    answer::{Answer, ErrorBudget, Notice},
    stop::Stop,
    wire::{
        ethernet::{Ethernet, Macs, VlanTag},
        icmp::{self, IcmpError},
        ipv4::{self, Ipv4},
        ipv6::Ipv6,
        protocol,
        tcp::{ACK, FIN, RST, SYN, Tcp},
    },
};
use zerocopy::big_endian::{U16, U32};

use crate::{
    Exit, Stage, Verdict,
    checksum::Sum,
    classify::forgotten,
    frame::{Frame, Offset},
    parse::{Kind, Packet, parse},
    tables::Tables,
};

/// The most that an ICMP error quotes of the packet that it is about, IP header included.
pub const QUOTE_BYTES: u16 = 128;
/// Hops that our own packets may take.
const TTL: u8 = 64;
/// DSCP of ICMP errors over IPv4: internetwork control (RFC 1812 §4.3.2.5).
const ERROR_CLASS: u8 = 0xc0;

/// Counts why a packet is stopped, and goes on to the stage that tells its sender.
#[inline(always)]
pub fn tell<T: Tables>(tables: &T, stop: Stop, answer: Answer) -> Exit {
    tables.count_stop(stop);
    tables.hand_over(answer.to_word());
    Exit::Go(Stage::Answer)
}

/// The stage that makes the frame an answer. What cannot be answered is dropped; why the packet
/// came here has been counted.
#[inline(always)]
pub fn answer<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let answer = Answer::of_word(tables.handed_over());
    let packet = parse(frame)?;
    let packet = forgotten(packet, tables);
    if packet.kind != Kind::Transport || !may_be_answered(frame, &packet) {
        return Ok(Verdict::Drop);
    }
    let is_answered = if answer.notice == Notice::RESET {
        reset(frame, &packet)?
    } else {
        error(frame, &packet, answer, tables)?
    };
    if is_answered {
        Ok(Verdict::Transmit)
    } else {
        Ok(Verdict::Drop)
    }
}

/// Whether there is one sender, and it meant one receiver.
#[inline(always)]
fn may_be_answered<F: Frame>(frame: &F, packet: &Packet) -> bool {
    let Some(ethernet) = frame.get::<Ethernet>(Offset(0)) else {
        return false;
    };
    let [first_of_mac, ..] = ethernet.destination.0;
    let has_one_sender = if packet.is_v4 {
        let [first, ..] = packet.source.v4_bytes();
        first != 0 && first != 127 && first < 224
    } else {
        let [first, ..] = packet.source.v6_bytes();
        first != 0xff && packet.source != Address::UNSPECIFIED
    };
    first_of_mac & 1 == 0 && has_one_sender
}

/// Makes a TCP segment a reset; says whether there is anything to reset.
#[inline(always)]
fn reset<F: Frame>(frame: &mut F, packet: &Packet) -> Result<bool, Stop> {
    if packet.protocol != protocol::TCP || packet.tcp_flags & RST != 0 {
        return Ok(false);
    }
    let tcp = frame.get::<Tcp>(packet.transport).ok_or(Stop::Malformed)?;
    let (sequence, acknowledgement, flags) = if packet.tcp_flags & ACK != 0 {
        (tcp.acknowledgement, U32::ZERO, RST)
    } else {
        let headers = u16::from(packet.transport.0) - u16::from(packet.network.0)
            + u16::from(tcp.data_offset >> 4) * 4;
        let payload = u32::from(packet.length_bytes.saturating_sub(headers));
        let length = payload
            + u32::from(packet.tcp_flags & SYN != 0)
            + u32::from(packet.tcp_flags & FIN != 0);
        let next = U32::new(tcp.sequence.get().wrapping_add(length));
        (U32::ZERO, next, RST | ACK)
    };
    let header = if packet.is_v4 { 20 } else { 40 };
    let at = packet.network.plus(header).ok_or(Stop::Malformed)?;
    // VERIFIER: before the frame's ends move; after that, LLVM keeps the pointer and its bounds check
    // apart ("invalid access to packet, off=0 size=1"; Linux 6.18, rustc 1.96).
    swap_macs(frame, Offset(0))?;
    end_at(frame, u16::from(at.0) + 20)?;
    let mut segment = Tcp {
        source_port: packet.destination_port,
        destination_port: packet.source_port,
        sequence,
        acknowledgement,
        data_offset: 5 << 4,
        flags,
        window: U16::ZERO,
        checksum: U16::ZERO,
        urgent: U16::ZERO,
    };
    segment.checksum = Sum::default()
        .pseudo_header(packet.destination, packet.source, protocol::TCP, 20)
        .word(segment.source_port)
        .word(segment.destination_port)
        .long(sequence)
        .long(acknowledgement)
        .word(U16::from_bytes([segment.data_offset, flags]))
        .finish();
    *frame.get_mut::<Tcp>(at).ok_or(Stop::Malformed)? = segment;
    write_ip(
        frame,
        packet,
        packet.destination,
        &Upper {
            protocol: protocol::TCP,
            class: 0,
            length_bytes: 20,
        },
    )?;
    Ok(true)
}

/// Puts an ICMP error before a packet's beginning and cuts its end off; says whether it may.
#[inline(always)]
fn error<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    answer: Answer,
    tables: &T,
) -> Result<bool, Stop> {
    // RFC 1191 §3: only a packet that may not be fragmented is worth a word. We fragment none.
    if answer.notice == Notice::TOO_BIG && packet.is_v4 {
        let header = frame.get::<Ipv4>(packet.network).ok_or(Stop::Malformed)?;
        if !header.must_not_be_fragmented() {
            return Ok(false);
        }
    }
    let record = tables
        .listener(answer.listener)
        .ok_or(Stop::UnwrittenListener)?;
    let vip = record.address();
    spend(tables)?;
    // In whole words, because that is how it is summed up; every packet here has 28 bytes or more.
    let quoted = packet.length_bytes.min(QUOTE_BYTES) & !3;
    let header: u8 = if packet.is_v4 { 20 } else { 40 };
    let grown = header + 8;
    swap_macs(frame, Offset(0))?;
    frame.move_start(i16::from(grown))?;
    let link = packet.network.0;
    end_at(frame, u16::from(link) + u16::from(grown) + quoted)?;
    move_link_header(frame, Offset(grown), packet)?;

    let said = if answer.notice == Notice::TOO_BIG {
        Said::too_big(packet.is_v4, answer.mtu_bytes)
    } else {
        Said::time_exceeded(packet.is_v4)
    };
    write_error(frame, packet, tables, vip, &said, quoted)?;
    Ok(true)
}

/// Takes one error off what this CPU may send in this second.
#[inline(always)]
pub(crate) fn spend<T: Tables>(tables: &T) -> Result<(), Stop> {
    let budget = ErrorBudget(tables.error_budget());
    let budget = budget.spend(tables.now()).ok_or(Stop::ErrorLimit)?;
    tables.set_error_budget(budget.0);
    Ok(())
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    kind: u8,
    code: u8,
    /// Zero where the kind has none.
    mtu_bytes: u16,
}

impl Said {
    /// The packet is larger than the path takes.
    #[inline(always)]
    pub(crate) const fn too_big(is_v4: bool, mtu_bytes: u16) -> Self {
        let (kind, code) = if is_v4 {
            (icmp::v4::UNREACHABLE, icmp::v4::FRAGMENTATION_NEEDED)
        } else {
            (icmp::v6::TOO_BIG, 0)
        };
        Self {
            kind,
            code,
            mtu_bytes,
        }
    }

    /// The packet has no hop left.
    #[inline(always)]
    const fn time_exceeded(is_v4: bool) -> Self {
        let kind = if is_v4 {
            icmp::v4::TIME_EXCEEDED
        } else {
            icmp::v6::TIME_EXCEEDED
        };
        Self {
            kind,
            code: 0,
            mtu_bytes: 0,
        }
    }

    /// The receiver cannot be reached.
    #[inline(always)]
    pub(crate) const fn host_unreachable(is_v4: bool) -> Self {
        let (kind, code) = if is_v4 {
            (icmp::v4::UNREACHABLE, icmp::v4::HOST_UNREACHABLE)
        } else {
            (icmp::v6::UNREACHABLE, icmp::v6::ADDRESS_UNREACHABLE)
        };
        Self {
            kind,
            code,
            mtu_bytes: 0,
        }
    }
}

/// Writes an ICMP error from `source` to the sender of `packet`, before the first `quoted` bytes of
/// that packet, a multiple of 4, which stand where they belong.
#[inline(always)]
pub(crate) fn write_error<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
    source: Address,
    said: &Said,
    quoted: u16,
) -> Result<(), Stop> {
    let (header, number) = if packet.is_v4 {
        (20, protocol::ICMP)
    } else {
        (40, protocol::ICMPV6)
    };
    let (kind, code) = (said.kind, said.code);
    let mtu_bytes = U32::new(u32::from(said.mtu_bytes));
    let length_bytes = quoted + 8;
    let mut sum = Sum::default()
        .word(U16::from_bytes([kind, code]))
        .long(mtu_bytes);
    if !packet.is_v4 {
        sum = sum.pseudo_header(source, packet.source, number, length_bytes);
    }
    let link = Offset(packet.network.0 & 31);
    let at = link.plus(header + 8).ok_or(Stop::Malformed)?;
    sum = sum.bytes(frame, at, quoted, tables);
    let message = IcmpError {
        kind,
        code,
        checksum: sum.finish(),
        mtu_bytes,
    };
    let at = link.plus(header).ok_or(Stop::Malformed)?;
    *frame.get_mut::<IcmpError>(at).ok_or(Stop::Malformed)? = message;
    write_ip(
        frame,
        packet,
        source,
        &Upper {
            protocol: number,
            class: if packet.is_v4 { ERROR_CLASS } else { 0 },
            length_bytes,
        },
    )
}

/// Cuts the frame off after so many bytes.
#[inline(always)]
pub(crate) fn end_at<F: Frame>(frame: &mut F, length_bytes: u16) -> Result<(), Stop> {
    let surplus = frame
        .length_bytes()
        .saturating_sub(usize::from(length_bytes));
    let surplus = i16::try_from(surplus).map_err(|_| Stop::NoRoom)?;
    frame.move_end(-surplus)
}

/// Copies the Ethernet header and its VLAN tags from `from` to the frame's start.
#[inline(always)]
fn move_link_header<F: Frame>(frame: &mut F, from: Offset, packet: &Packet) -> Result<(), Stop> {
    let ethernet = *frame.get::<Ethernet>(from).ok_or(Stop::Malformed)?;
    let tags = [Offset(14), Offset(18)];
    *frame
        .get_mut::<Ethernet>(Offset(0))
        .ok_or(Stop::Malformed)? = ethernet;
    for tag in tags {
        if tag.0 < packet.network.0 {
            let old = from.plus(u16::from(tag.0)).ok_or(Stop::Malformed)?;
            let old = *frame.get::<VlanTag>(old).ok_or(Stop::Malformed)?;
            *frame.get_mut::<VlanTag>(tag).ok_or(Stop::Malformed)? = old;
        }
    }
    Ok(())
}

/// Addresses the frame to whoever sent it.
#[inline(always)]
fn swap_macs<F: Frame>(frame: &mut F, at: Offset) -> Result<(), Stop> {
    let macs = frame.get_mut::<Macs>(at).ok_or(Stop::Malformed)?;
    let [a, b, c, d, e, f, g, h] = macs.head.to_bytes();
    let [i, j, k, l] = macs.tail.to_bytes();
    macs.head = [g, h, i, j, k, l, a, b].into();
    macs.tail = [c, d, e, f].into();
    Ok(())
}

/// What our IP header says about what follows it.
struct Upper {
    protocol: u8,
    class: u8,
    length_bytes: u16,
}

/// Writes the IP header of an answer where the packet's own stood.
#[inline(always)]
fn write_ip<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    source: Address,
    upper: &Upper,
) -> Result<(), Stop> {
    if packet.is_v4 {
        let mut header = Ipv4 {
            version_and_length: 0x45,
            traffic_class: upper.class,
            total_length: U16::new(upper.length_bytes + 20),
            identification: U16::ZERO,
            // With "do not fragment", the identification says nothing (RFC 6864 §4.1).
            fragment: ipv4::DO_NOT_FRAGMENT,
            ttl: TTL,
            protocol: upper.protocol,
            checksum: U16::ZERO,
            source: source.v4_bytes(),
            destination: packet.source.v4_bytes(),
        };
        header.checksum = Sum::default()
            .word(U16::from_bytes([0x45, upper.class]))
            .word(header.total_length)
            .word(header.fragment)
            .word(U16::from_bytes([TTL, upper.protocol]))
            .address(source)
            .address(packet.source)
            .finish();
        *frame
            .get_mut::<Ipv4>(packet.network)
            .ok_or(Stop::Malformed)? = header;
    } else {
        let header = Ipv6 {
            version_class_label: [6 << 4 | upper.class >> 4, upper.class << 4, 0, 0],
            payload_length: U16::new(upper.length_bytes),
            next_header: upper.protocol,
            hop_limit: TTL,
            source: source.v6_bytes(),
            destination: packet.source.v6_bytes(),
        };
        *frame
            .get_mut::<Ipv6>(packet.network)
            .ok_or(Stop::Malformed)? = header;
    }
    Ok(())
}
