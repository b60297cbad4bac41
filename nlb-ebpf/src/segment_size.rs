//! TCP's maximum segment size, lowered on its way where a listener says so.
//!
//! Each end names in its SYN the largest segment that it takes (RFC 9293 §3.7.1); lowered on the
//! way, it keeps both from sending what a smaller link behind us does not take, also where ICMP
//! errors get lost. An option list that cannot be read to the option is left alone, and none is
//! added to a SYN without one.

use nlb_common::{
    listener::ListenerId,
    wire::tcp::{OPTION_END, OPTION_NOTHING, OPTION_SEGMENT_SIZE, Tcp, TcpOption},
};
use zerocopy::big_endian::U16;

use crate::{
    checksum::Change,
    frame::{Frame, Offset},
    tables::Tables,
};

/// Options that are looked at: as many as fit a header.
const OPTIONS: usize = 40;

/// Lowers the segment size of a SYN, if it is larger than its listener wants it. The caller has
/// made sure that it is one, and says where its TCP header stands.
#[inline(always)]
pub fn clamp<F: Frame, T: Tables>(
    frame: &mut F,
    transport: Offset,
    listener: ListenerId,
    tables: &T,
) {
    let Some(record) = tables.listener(listener) else {
        return;
    };
    let most_bytes = record.policy().mss_clamp_bytes;
    if most_bytes != 0
        && let Some((at, is_odd)) = find(frame, transport, tables)
    {
        lower(frame, transport, at, is_odd, U16::new(most_bytes));
    }
}

/// The segment size that a SYN names, in bytes, if it names one.
#[inline(always)]
pub(crate) fn of<F: Frame, T: Tables>(frame: &F, transport: Offset, tables: &T) -> Option<u16> {
    let (at, _) = find(frame, transport, tables)?;
    Some(frame.get::<U16>(at)?.get())
}

/// A segment size of our own, as large as the listener wants it.
#[inline(always)]
pub(crate) fn clamped<T: Tables>(bytes: u16, listener: ListenerId, tables: &T) -> u16 {
    match tables.listener(listener) {
        Some(record) if record.policy().mss_clamp_bytes != 0 => {
            bytes.min(record.policy().mss_clamp_bytes)
        }
        _ => bytes,
    }
}

/// Where the option's number stands, and whether that is an odd number of bytes into the header.
///
/// VERIFIER: the place is forgotten after each option, and then bounded anew, or each way through
/// the options before it would be followed for itself.
#[inline(always)]
fn find<F: Frame, T: Tables>(frame: &F, transport: Offset, tables: &T) -> Option<(Offset, bool)> {
    let tcp = frame.get::<Tcp>(transport)?;
    let end = u16::from(tcp.data_offset >> 4) * 4;
    let unknown = u64::from(tcp.sequence.get());
    let mut at = 20u16;
    for _ in 0..OPTIONS {
        if at + 4 > end {
            return None;
        }
        let option = frame.get::<TcpOption>(transport.plus_in_quote(at)?)?;
        if option.kind == OPTION_END {
            return None;
        }
        let length = if option.kind == OPTION_NOTHING {
            1
        } else {
            u16::from(option.length)
        };
        if length == 0 || length > end - at || option.kind != OPTION_NOTHING && length == 1 {
            return None;
        }
        if option.kind == OPTION_SEGMENT_SIZE {
            if length != 4 {
                return None;
            }
            // VERIFIER: forgotten, or LLVM drops the bounds check that this place needs, because
            // the option's own says the same.
            let place = transport.plus_in_quote(at + 2)?;
            let [place, ..] = tables.forget(u64::from(place.0), unknown).to_le_bytes();
            return Some((Offset(place), at & 1 != 0));
        }
        let [low, ..] = tables.forget(u64::from(at + length), unknown).to_le_bytes();
        at = u16::from(low & 63);
    }
    None
}

#[inline(always)]
fn lower<F: Frame>(frame: &mut F, transport: Offset, at: Offset, is_odd: bool, most_bytes: U16) {
    let Some(size) = frame.get_mut::<U16>(at) else {
        return;
    };
    let old = *size;
    if old.get() <= most_bytes.get() {
        return;
    }
    *size = most_bytes;
    let Some(tcp) = frame.get_mut::<Tcp>(transport) else {
        return;
    };
    // A number that straddles two words changes both: its bytes count the other way round.
    let turned = |number: U16| {
        let [a, b] = number.to_bytes();
        if is_odd {
            U16::from_bytes([b, a])
        } else {
            number
        }
    };
    tcp.checksum = Change::default()
        .word(turned(old), turned(most_bytes))
        .apply(tcp.checksum);
}
