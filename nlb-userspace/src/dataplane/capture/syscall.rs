//! The one use of `bpf(2)` that aya has no words for: putting a program in the place of a certain other one,
//! and of no other.
#![expect(unsafe_code, reason = "the boundary to the kernel")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{bpf_attr, bpf_cmd};

/// `BPF_F_REPLACE` of `linux/bpf.h`: only if the old program is the named one.
const REPLACE: u32 = 1 << 2;

/// A pinned link.
pub(super) struct Link(OwnedFd);

impl Link {
    /// Opens it.
    pub(super) fn open(pin: &Path) -> io::Result<Self> {
        let path = CString::new(pin.as_os_str().as_bytes())?;
        let mut attributes = empty();
        // SAFETY: all variants of the union are plain numbers, and every bit of them is zero or written.
        let open = unsafe { &mut attributes.__bindgen_anon_4 };
        open.pathname = path.as_ptr() as u64;
        let number = call(bpf_cmd::BPF_OBJ_GET, &attributes)?;
        // SAFETY: the kernel has just opened it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// Puts a program in the place of another one, in one step; refused if that is not there any more.
    pub(super) fn replace(&self, old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> io::Result<()> {
        let mut attributes = empty();
        // SAFETY: as in `open`.
        let update = unsafe { &mut attributes.link_update };
        update.link_fd = self.0.as_raw_fd().cast_unsigned();
        update.__bindgen_anon_1.new_prog_fd = new.as_raw_fd().cast_unsigned();
        update.__bindgen_anon_2.old_prog_fd = old.as_raw_fd().cast_unsigned();
        update.flags = REPLACE;
        call(bpf_cmd::BPF_LINK_UPDATE, &attributes).map(|_zero| ())
    }
}

fn empty() -> bpf_attr {
    // SAFETY: as in `Link::open`.
    unsafe { std::mem::zeroed() }
}

fn call(command: bpf_cmd, attributes: &bpf_attr) -> io::Result<i32> {
    // SAFETY: the attributes are of this size, and whatever they point to outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            &raw const *attributes,
            size_of::<bpf_attr>(),
        )
    };
    i32::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(io::Error::last_os_error)
}
