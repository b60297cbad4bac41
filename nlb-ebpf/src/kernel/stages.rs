//! Going on to another stage: a tail call.

use aya_ebpf::{btf_maps::ProgramArray, macros::btf_map, programs::XdpContext};
use nlb_ebpf::Stage;

/// The stages' programs, by [`Stage`], and the front program; filled by the loader before the front stage is attached.
#[btf_map]
static STAGES: ProgramArray<{ Stage::PROGRAMS }> = ProgramArray::new();

/// Goes on to a stage; returns only if its program is missing.
///
/// Each call names its index, because the JIT turns a tail call with a constant index into a jump.
#[inline(always)]
pub(crate) fn go(context: &XdpContext, stage: Stage) {
    macro_rules! jump {
        ($($stage:ident),+) => {
            match stage {
                $(Stage::$stage => {
                    // SAFETY: the context is this call's, and nothing of it is used afterwards.
                    unsafe { STAGES.tail_call(context, Stage::$stage as u32) };
                })+
            }
        };
    }
    jump!(
        Classify,
        Begin,
        First,
        Back,
        Icmp,
        Fragment,
        Answer,
        Depart,
        Quic,
        SnatKnown,
        SnatBegin,
        SnatBack,
        SnatIcmp,
        SnatFirst,
        OuterError,
        Cookie,
        CookieReturn,
        CookieBegin,
        SequenceKnown,
        SequenceBack,
        SequenceIcmp,
        Fault
    );
}
