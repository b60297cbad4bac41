//! [`DecapTables`] over the kernel's maps.

use aya_ebpf::{
    btf_maps::{HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
    macros::btf_map,
};
use nlb_common::{
    address::Address,
    decap::{DecapSettings, DecapStop, Decapsulated, Encapsulation, SourceKey},
};
use nlb_ebpf::decap::DecapTables;
use zerocopy::big_endian::U16;

#[btf_map]
static DECAP_OWN: HashMap<Address, u32, 4096> = HashMap::new();
#[btf_map]
static DECAP_VIPS: HashMap<Address, u32, 1024> = HashMap::new(); // set by the loader
#[btf_map]
static DECAP_SOURCES: LpmTrie<SourceKey, u32, 1024> = LpmTrie::new(); // set by the loader
#[btf_map]
static DECAP_COUNTERS: PerCpuArray<Decapsulated, { Encapsulation::ALL.len() }> = PerCpuArray::new();
#[btf_map]
static DECAP_STOPS: PerCpuArray<u64, { DecapStop::COUNT }> = PerCpuArray::new();

/// Patched by the loader.
#[unsafe(no_mangle)]
static DECAP_SETTINGS: DecapSettings = DecapSettings {
    gue_port: U16::ZERO,
    geneve_port: U16::ZERO,
    takes_ipip: 0,
    restricts_sources: 0,
};

/// Reads one of the loader's constants where it stands.
macro_rules! setting {
    ($field:ident) => {{
        let place = &raw const DECAP_SETTINGS.$field;
        // SAFETY: a field of a static that lives as long as the program and that nobody writes
        // after loading; volatile, because the compiler must not take the value it knows.
        unsafe { place.read_volatile() }
    }};
}

/// VERIFIER: a key of aya's is packed, and the stack has no unaligned words ("misaligned stack access
/// off 0+0+-12 size 8"; Linux 6.18, rustc 1.96).
#[repr(align(8))]
struct Placed(Key<SourceKey>);

/// The kernel's maps.
pub(crate) struct DecapMaps;

impl DecapTables for DecapMaps {
    #[inline(always)]
    fn gue_port(&self) -> U16 {
        setting!(gue_port)
    }

    #[inline(always)]
    fn geneve_port(&self) -> U16 {
        setting!(geneve_port)
    }

    #[inline(always)]
    fn takes_ipip(&self) -> bool {
        setting!(takes_ipip) != 0
    }

    #[inline(always)]
    fn is_own(&self, address: &Address) -> bool {
        DECAP_OWN.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn is_vip(&self, address: &Address) -> bool {
        DECAP_VIPS.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn is_trusted(&self, source: &Address) -> bool {
        let key = Placed(Key::new(SourceKey::BITS, SourceKey::of(*source)));
        setting!(restricts_sources) == 0 || DECAP_SOURCES.get(&key.0).is_some()
    }

    #[inline(always)]
    fn count(&self, encapsulation: Encapsulation, bytes: u16) {
        if let Some(counter) = DECAP_COUNTERS.get_ptr_mut(encapsulation as u32) {
            // SAFETY: this CPU's own value, and XDP programs do not interrupt each other on a CPU.
            unsafe {
                *counter += Decapsulated {
                    packets: 1,
                    bytes: u64::from(bytes),
                };
            }
        }
    }

    #[inline(always)]
    fn count_stop(&self, stop: DecapStop) {
        if let Some(count) = DECAP_STOPS.get_ptr_mut(stop as u32) {
            // SAFETY: as in `count`.
            unsafe { *count += 1 };
        }
    }
}
