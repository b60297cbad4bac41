//! The kernel program of `nlb capture`: it stands in the load balancer's place while somebody captures, calls
//! it for each packet, and tells what the packet was, what became of it, and why.
//!
//! The call is a function that goes on to the load balancer's front program by a tail call: whatever that goes
//! on to returns to whoever called the function, so what comes after sees the end of the whole story. While
//! nobody captures, none of this is there.
//!
//! Who captures keeps a lease. When it has run out, because they were killed, packets go straight on to the
//! load balancer until its daemon takes this program away.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "the boundary to the kernel")]

#[expect(dead_code, reason = "the load balancer uses all of them")]
#[path = "../instructions.rs"]
mod instructions;
mod kept;
mod stops;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    btf_maps::{Array, PerCpuArray, ProgramArray, RingBuf},
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_ringbuf_output},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use nlb_common::{
    capture::{Both, Captured, End, FRAME_BYTES, Lease, Length, Missed, Wish},
    stage::Stage,
    stop::Stop,
};
use nlb_ebpf::parse::parse;

use crate::kept::{Kept, ROOM_BYTES};

/// The load balancer's own, which the loader puts here; its front program is in it, too.
#[btf_map]
static STAGES: ProgramArray<{ Stage::PROGRAMS }> = ProgramArray::new();
/// Until when somebody captures.
#[btf_map]
static LEASE: Array<Lease, 1> = Array::new();
/// Which packets are meant; written before any packet comes here.
#[btf_map]
static WISH: Array<Wish, 1> = Array::new();
/// The packet that is just being looked at.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();
/// Packets that are not told.
#[btf_map]
static MISSED: PerCpuArray<Missed, 1> = PerCpuArray::new();
/// Packets that are told; its size is set by the loader.
#[btf_map]
static CAPTURED: RingBuf<Captured, 4096> = RingBuf::new();

/// What this processor knows of its present packet, and of those before it.
///
/// No packet interrupts another one on a processor.
#[repr(C)]
struct Scratch {
    /// How often each reason was counted, up to the packet before this one.
    counted: [u64; Stop::COUNT],
    /// Whether `counted` has been read.
    is_counting: u64,
    /// The second in which packets are counted, and how many there were.
    second: u64,
    packets: u64,
    /// Zero: `XDP_ABORTED`.
    zero: u64,
    /// The ends of the packet.
    both: Both,
    /// What is told, in one piece: the record, and the bytes behind it.
    record: Captured,
    bytes: [u8; ROOM_BYTES],
}

/// Stands in the load balancer's place.
#[xdp(frags)]
fn nlb_capture(context: XdpContext) -> u32 {
    if !is_leased() {
        // SAFETY: the context is this call's, and nothing of it is used afterwards.
        unsafe { STAGES.tail_call(&context, Stage::FRONT_INDEX) };
        return xdp_action::XDP_ABORTED;
    }
    came(context.ctx);
    let action = through(context.ctx);
    left(context.ctx, action);
    action
}

/// Whether somebody captures.
#[inline(always)]
fn is_leased() -> bool {
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    LEASE.get(0).is_some_and(|lease| now_ns < lease.until_ns)
}

/// Calls the load balancer.
///
/// VERIFIER: it follows a tail call into nothing, and takes for the function's result what stands behind it;
/// and so does the compiler. That must be something that neither knows.
#[inline(never)]
fn through(context: *mut xdp_md) -> u32 {
    // SAFETY: the context is this call's.
    unsafe { STAGES.tail_call(&XdpContext::new(context), Stage::FRONT_INDEX) };
    let Some(scratch) = SCRATCH.get_ptr(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the map's value is there for the program's life.
    let zero = unsafe { (&raw const (*scratch).zero).read_volatile() };
    zero as u32
}

/// Before the load balancer: the packet as it came in.
///
/// VERIFIER: a function of its own, because the one that calls the load balancer may use 256 bytes of stack.
#[inline(never)]
fn came(context: *mut xdp_md) -> u32 {
    let (Some(scratch), Some(wish)) = (scratch(), WISH.get(0)) else {
        return 0;
    };
    if scratch.is_counting == 0 {
        let _since = stops::counted_since(&mut scratch.counted);
        scratch.is_counting = 1;
    }
    scratch.record.came = kept::keep(&mut scratch.bytes, 0, context, wish.frame_bytes);
    0
}

/// After it: what became of it.
#[inline(never)]
fn left(context: *mut xdp_md, action: u32) -> u32 {
    let (Some(scratch), Some(wish)) = (scratch(), WISH.get(0)) else {
        return 0;
    };
    // What is redirected was never stopped.
    let stops = if action == xdp_action::XDP_REDIRECT {
        0
    } else {
        stops::counted_since(&mut scratch.counted)
    };
    if !wish.is_about(stops) {
        return 0;
    }
    let came = scratch.record.came;
    let is_sent = action == xdp_action::XDP_TX || action == xdp_action::XDP_REDIRECT;
    let left = if is_sent {
        kept::keep(
            &mut scratch.bytes,
            came.kept_bytes,
            context,
            wish.frame_bytes,
        )
    } else {
        Length::default()
    };
    if wish.asks_for_ends() {
        read(0, came.kept_bytes, 0);
        read(came.kept_bytes, left.kept_bytes, 2);
    }
    let Some(scratch) = crate::scratch() else {
        return 0;
    };
    if wish.asks_for_ends() && !wish.has(&scratch.both) {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    if is_more_than_asked_for(scratch, wish, at_ns) {
        missed(|missed| missed.limited += 1);
        return 0;
    }
    scratch.record = Captured {
        at_ns,
        stops,
        action,
        interface: XdpContext::new(context).ingress_ifindex() as u32,
        came,
        left,
    };
    tell(scratch, came.kept_bytes, left.kept_bytes);
    0
}

/// This processor's scratch space.
#[inline(always)]
fn scratch() -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the map lives as long as the program, its values take any bytes, and this one is this
    // processor's own; each function asks for it once, and none holds it while it calls another one.
    Some(unsafe { &mut *scratch })
}

/// Counts what is not told.
#[inline(always)]
fn missed(count: impl FnOnce(&mut Missed)) {
    if let Some(missed) = MISSED.get_ptr_mut(0) {
        // SAFETY: as in `scratch`.
        count(unsafe { &mut *missed });
    }
}

/// Whether this second has had its packets; counts this one.
#[inline(always)]
fn is_more_than_asked_for(scratch: &mut Scratch, wish: &Wish, at_ns: u64) -> bool {
    let second = at_ns / 1_000_000_000;
    if second != scratch.second {
        scratch.second = second;
        scratch.packets = 0;
    }
    scratch.packets += 1;
    scratch.packets > u64::from(wish.packets_per_second)
}

/// Reads the two ends of a frame that was copied, as far as its headers tell, and leaves them at this place.
///
/// VERIFIER: a function, and its result is left in a map: so it forgets by which of many ways a packet was
/// read.
#[inline(never)]
fn read(start: u32, length: u32, place: u32) -> u32 {
    let Some(scratch) = scratch() else {
        return 0;
    };
    let (mut source, mut destination) = (End::UNSPECIFIED, End::UNSPECIFIED);
    if let Ok(packet) = parse(&Kept::new(&scratch.bytes, start, length)) {
        source = End::new(packet.source, packet.source_port);
        destination = End::new(packet.destination, packet.destination_port);
        if place == 0 {
            scratch.both.protocol = packet.protocol.into();
        }
    }
    let [came_from, came_to, left_from, left_to] = &mut scratch.both.ends;
    if place == 0 {
        (*came_from, *came_to) = (source, destination);
    } else {
        (*left_from, *left_to) = (source, destination);
    }
    0
}

/// Hands record and bytes over.
#[inline(always)]
fn tell(scratch: &mut Scratch, came: u32, left: u32) {
    let bytes = u64::from(came) + u64::from(left);
    // VERIFIER: it has forgotten how long each part is.
    if bytes > 2 * FRAME_BYTES as u64 {
        return;
    }
    let ring = (&raw const CAPTURED).cast_mut().cast();
    let record = (&raw mut scratch.record).cast();
    let length = size_of::<Captured>() as u64 + bytes;
    // SAFETY: the bytes stand behind the record in the same value, and there are so many.
    let refused = unsafe { bpf_ringbuf_output(ring, record, length, 0) } != 0;
    if refused {
        missed(|missed| missed.lost += 1);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
