//! Interfaces by name and by index, in the network namespace that we are in.

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType,
    netdevice::{index_to_name, name_to_index},
    socket_with,
};

/// Where the kernel is asked.
#[derive(Debug)]
pub struct Interfaces(OwnedFd);

impl Interfaces {
    /// Opens a socket to ask through.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Self(socket))
    }

    /// An interface's index.
    pub fn index(&self, name: &str) -> Option<u32> {
        name_to_index(&self.0, name).ok()
    }

    /// An interface's index, or what to do if there is none.
    pub fn wanted(&self, name: &str) -> Result<u32, String> {
        let index = self.index(name);
        index.ok_or_else(|| format!("there is no interface `{name}`; `ip link` lists them"))
    }

    /// An interface's name, or its number if there is none.
    pub fn name(&self, index: u32) -> String {
        index_to_name(&self.0, index).unwrap_or_else(|_| format!("interface {index}"))
    }
}
