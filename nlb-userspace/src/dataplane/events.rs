//! What the packet program tells: a ring buffer that is waited for.
#![expect(
    unsafe_code,
    reason = "tokio asks for a promise about the file descriptor"
)]

use std::{io, net::IpAddr};

use aya::maps::{MapData, RingBuf};
use nlb_common::event::Event;
use tokio::io::unix::AsyncFd;
use zerocopy::FromBytes as _;

/// The packet program's events.
pub struct Events(AsyncFd<RingBuf<MapData>>);

/// A ring buffer that can be waited for.
pub(super) fn waited_for(buffer: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring buffer owns its map's descriptor, gives the same one each time, and neither
    // closes nor replaces it before it is dropped.
    let registered = unsafe { AsyncFd::register(buffer) };
    registered.map_err(|error| error.into_parts().1)
}

impl Events {
    /// Waits on this ring buffer from now on; needs a tokio runtime around it.
    pub fn new(buffer: RingBuf<MapData>) -> io::Result<Self> {
        waited_for(buffer).map(Self)
    }

    /// Waits until something was told, and gives the neighbours that packets were dropped for,
    /// each once. Dropping the future loses nothing.
    pub async fn wanted_neighbours(&mut self) -> io::Result<Vec<(u32, IpAddr)>> {
        let mut guard = self.0.readable_mut().await?;
        let mut wanted = Vec::new();
        while let Some(item) = guard.get_inner_mut().next() {
            if let Ok((event, _)) = Event::read_from_prefix(&item)
                && event.kind == Event::NEIGHBOUR_WANTED
            {
                let neighbour = (event.interface, IpAddr::from(event.address));
                if !wanted.contains(&neighbour) {
                    wanted.push(neighbour);
                }
            }
        }
        guard.clear_ready();
        Ok(wanted)
    }
}
