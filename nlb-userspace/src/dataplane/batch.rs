//! Many entries of a map in one system call, which aya does not have.
//!
//! It is not the calls that are dear. Whoever puts a map into an array of maps waits until no packet
//! sees the one that was there, which takes the kernel some ten milliseconds; one call waits once.
#![expect(unsafe_code, reason = "a system call that hands over addresses")]

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, RawFd},
};

/// `BPF_MAP_UPDATE_BATCH` of `enum bpf_cmd` in `linux/bpf.h`.
const UPDATE_BATCH: libc::c_long = 26;

/// The `batch` of `union bpf_attr`.
#[derive(Debug, Default)]
#[repr(C)]
struct Batch {
    begin: u64,
    end: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Puts maps into an array of maps. After an error the first of them may be in it.
pub(super) fn put(outer: BorrowedFd<'_>, maps: &[(u32, BorrowedFd<'_>)]) -> io::Result<()> {
    let keys: Vec<u32> = maps.iter().map(|(key, _)| *key).collect();
    let values: Vec<RawFd> = maps.iter().map(|(_, map)| map.as_raw_fd()).collect();
    let mut batch = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(maps.len()).unwrap_or(u32::MAX),
        map_fd: outer.as_raw_fd().unsigned_abs(),
        ..Batch::default()
    };
    // SAFETY: `batch` is as long as is said; it points to as many keys and values as it counts, of the
    // sizes that an array of maps has, and both outlive the call, which keeps no address.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            UPDATE_BATCH,
            &raw mut batch,
            size_of::<Batch>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
