//! What the machine's programs can reach: regions of bytes, and nothing between them.

use anyhow::{Context as _, Result};

/// Bits of an address that say where in a region; those above say which region.
const OFFSET_BITS: u32 = 32;

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    regions: Vec<Vec<u8>>,
}

impl Memory {
    /// A new region with these bytes; returns its address, which is never 0.
    pub(super) fn add(&mut self, bytes: Vec<u8>) -> u64 {
        self.regions.push(bytes);
        (self.regions.len() as u64) << OFFSET_BITS
    }

    /// A region, by any address in it.
    fn region(&self, address: u64) -> Result<usize> {
        (address >> OFFSET_BITS)
            .checked_sub(1)
            .and_then(|region| usize::try_from(region).ok())
            .filter(|region| *region < self.regions.len())
            .with_context(|| format!("{address:#x} is no address"))
    }

    /// The whole region that an address is in, which may grow.
    pub(super) fn whole(&mut self, address: u64) -> Result<&mut Vec<u8>> {
        let region = self.region(address)?;
        Ok(&mut self.regions[region])
    }

    /// So many bytes.
    pub(super) fn bytes(&self, address: u64, count: usize) -> Result<&[u8]> {
        let start = offset(address);
        self.regions[self.region(address)?]
            .get(start..start + count)
            .with_context(|| format!("{count} bytes at {address:#x} are outside of their region"))
    }

    /// So many bytes, to be changed.
    pub(super) fn bytes_mut(&mut self, address: u64, count: usize) -> Result<&mut [u8]> {
        let start = offset(address);
        self.whole(address)?
            .get_mut(start..start + count)
            .with_context(|| format!("{count} bytes at {address:#x} are outside of their region"))
    }

    /// A number of so many bytes.
    pub(super) fn load(&self, address: u64, width: usize) -> Result<u64> {
        let mut word = [0; 8];
        word[..width].copy_from_slice(self.bytes(address, width)?);
        Ok(u64::from_le_bytes(word))
    }

    /// Stores the low bytes of a number.
    pub(super) fn store(&mut self, address: u64, width: usize, value: u64) -> Result<()> {
        self.bytes_mut(address, width)?
            .copy_from_slice(&value.to_le_bytes()[..width]);
        Ok(())
    }
}

/// Where in its region an address is.
fn offset(address: u64) -> usize {
    usize::try_from(address & ((1 << OFFSET_BITS) - 1)).expect("32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_of_a_region_is_read_or_written() {
        let mut memory = Memory::default();
        let first = memory.add(vec![1; 8]);
        let second = memory.add(vec![2; 8]);
        assert_eq!(memory.load(first, 8).unwrap(), 0x0101_0101_0101_0101);
        memory.store(second + 4, 4, 7).unwrap();
        assert_eq!(memory.load(second + 4, 4).unwrap(), 7);
        memory.load(first + 4, 8).unwrap_err();
        memory.store(second + 8, 1, 0).unwrap_err();
        memory.load(0, 1).unwrap_err();
        memory.load(first.wrapping_sub(1), 1).unwrap_err();
    }
}
