//! Where the packet path touches the kernel: the only packet pointers, map statics and helpers.

pub(crate) mod cookies;
pub(crate) mod early;
pub(crate) mod faults;
pub(crate) mod frame;
pub(crate) mod instructions;
pub(crate) mod maps;
pub(crate) mod numbers;
mod route;
pub(crate) mod stages;

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect};

/// Sends the frame out through another interface.
#[inline(always)]
pub(crate) fn redirect(interface: u32) -> u32 {
    // SAFETY: a helper without pointers; an interface that is gone makes the kernel drop the frame
    // and count it as `xdp_redirect_err`.
    let action = unsafe { bpf_redirect(interface, 0) };
    u32::try_from(action).unwrap_or(xdp_action::XDP_ABORTED)
}
