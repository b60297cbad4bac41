//! A map's memory, mapped into ours: records that packets read while we change them.
#![expect(unsafe_code, reason = "memory that the kernel shares with us")]

use std::{
    io,
    marker::PhantomData,
    ops::Deref,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use memmap2::{MmapOptions, MmapRaw};
use nlb_common::{
    admission::Admission,
    flow::Bucket,
    listener::Listener,
    maps::{Header, Hints, Prefilter},
    next_hop::NextHopSlot,
    ring::SharedRing,
    sequence::Sequences,
    source::{Pool, SourceBucket, Translations},
    target::Target,
    tunnel::TunnelSlot,
    word::Word,
};

mod sealed {
    /// # Safety
    ///
    /// The type consists of [`nlb_common::word::Word`]s only, so that it may change under a shared
    /// reference, and takes any bytes.
    pub unsafe trait Record {}
}

macro_rules! records {
    ($($record:ty),+) => {$(
        // SAFETY: its fields are `Word`s, as zerocopy's derives on it prove for the bytes.
        unsafe impl sealed::Record for $record {}
    )+};
}

records!(
    Admission,
    Bucket,
    Header,
    Hints,
    Listener,
    NextHopSlot,
    Pool,
    Prefilter,
    Sequences,
    SharedRing,
    SourceBucket,
    Target,
    Translations,
    TunnelSlot,
    Word
);

/// All records of an array map that was made with `BPF_F_MMAPABLE`.
#[derive(Debug)]
pub struct Shared<R> {
    memory: MmapRaw,
    count: usize,
    records: PhantomData<R>,
}

impl<R: sealed::Record> Shared<R> {
    /// Maps `count` records of the map behind `map`.
    pub fn new(map: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        let memory = MmapOptions::new()
            .len(size_of::<R>() * count)
            .map_raw(map.as_raw_fd())?;
        Ok(Self {
            memory,
            count,
            records: PhantomData,
        })
    }
}

impl<R: sealed::Record> Deref for Shared<R> {
    type Target = [R];

    fn deref(&self) -> &[R] {
        // SAFETY: the mapping is `count` records long, aligned to a page, and lives as long as
        // `self`; `Record` says that the kernel may change it under us.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.count) }
    }
}
