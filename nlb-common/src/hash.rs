//! The hashes of a flow, one text for kernel and userspace.
//!
//! What chooses a target is XXH64 over keyed words, which all nodes of a deployment agree about:
//!
//! XXH64 takes a seed, but inputs are known that collide under every seed. So each word of the
//! input is combined with a secret word first (as XXH3 does): whoever does not know the key cannot
//! aim at a bucket or a target. Only whole eight-byte words are hashed, read in little-endian
//! order, which is the order of every machine that we run on.
//!
//! What places a flow in this node's table is computed for every packet, and agrees with nobody: it
//! multiplies by secret odd numbers, half as many instructions. Whoever does not know these, and is
//! not told where a flow lies, can prepare no two clients that meet more often than by chance
//! (multiply-shift: Dietzfelbinger et al., "A Reliable Randomized Algorithm for the Closest-Pair
//! Problem", 1997).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, big_endian::U16};

use crate::address::Address;

const PRIME_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME_5: u64 = 0x27D4_EB2F_1656_67C5;

/// A secret: a seed, and a word for each word of the longest input.
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Key {
    /// XXH64's seed.
    pub seed: u64,
    /// Combined with the input by exclusive or.
    pub words: [u64; 5],
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(secret)")
    }
}

impl Key {
    /// The key that a 32-byte secret stands for; `purpose` makes unrelated keys of one secret.
    pub fn derive(secret: &[u8; 32], purpose: u64) -> Self {
        let mut input = [purpose, 0, 0, 0, 0];
        for (word, bytes) in input.iter_mut().skip(1).zip(secret.chunks_exact(8)) {
            *word = bytes
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        let word = |seed| xxh64(seed, &input);
        Self {
            seed: word(0),
            words: [word(1), word(2), word(3), word(4), word(5)],
        }
    }
}

/// Where a key's words come from: a [`Key`], or constants that the loader patched into a program,
/// where each word that is not needed is a load that is not done.
pub trait Secret {
    /// XXH64's seed.
    fn seed(&self) -> u64;

    /// The word that is combined with the input's word of the same index, below 5.
    fn word(&self, index: usize) -> u64;

    /// Places a client's endpoint in the flow table. The VIP and the target are left out, so that
    /// both directions of a translated flow meet in one bucket.
    #[inline(always)]
    fn table(&self, client: Address, port: U16, protocol: u8) -> u64 {
        let meta = raw(port) | u64::from(protocol) << 16;
        if client.is_v4() {
            let word = (client.words[1] >> 32) | meta << 32;
            fold(fold(word ^ self.seed(), self.word(0)), self.word(1))
        } else {
            let upper = fold(client.words[0] ^ self.seed(), self.word(0));
            let lower = fold(client.words[1] ^ upper, self.word(1));
            fold(meta ^ lower, self.word(2))
        }
    }

    /// Chooses a target for a five-tuple.
    #[inline(always)]
    fn select(
        &self,
        client: Address,
        client_port: U16,
        vip: Address,
        vip_port: U16,
        protocol: u8,
    ) -> u64 {
        self.select_with_sequence(client, client_port, vip, vip_port, protocol, 0)
    }

    /// The same with a TCP sequence number; 0 changes nothing.
    #[inline(always)]
    fn select_with_sequence(
        &self,
        client: Address,
        client_port: U16,
        vip: Address,
        vip_port: U16,
        protocol: u8,
        sequence: u32,
    ) -> u64 {
        // One word holds it all: the protocol of packets that have a sequence number is a constant.
        let meta = raw(client_port)
            | raw(vip_port) << 16
            | (u64::from(protocol) ^ u64::from(sequence)) << 32;
        if client.is_v4() {
            let addresses = (client.words[1] >> 32) | (vip.words[1] >> 32) << 32;
            self.hash(&[addresses, meta])
        } else {
            self.hash(&[
                client.words[0],
                client.words[1],
                vip.words[0],
                vip.words[1],
                meta,
            ])
        }
    }

    /// Places what a flow with a translated source owns: one (address, port) of ours towards one
    /// target. The lower half is the place, the upper half tells it from its neighbours there.
    #[inline(always)]
    fn source(
        &self,
        target: Address,
        target_port: U16,
        source: Address,
        source_port: U16,
        protocol: u8,
    ) -> u64 {
        self.select(source, source_port, target, target_port, protocol)
    }

    /// Keyed XXH64 of up to five words.
    #[inline(always)]
    fn hash<const N: usize>(&self, words: &[u64; N]) -> u64 {
        let mut keyed = *words;
        for (index, word) in keyed.iter_mut().enumerate() {
            *word ^= self.word(index);
        }
        xxh64(self.seed(), &keyed)
    }
}

impl Secret for Key {
    #[inline(always)]
    fn seed(&self) -> u64 {
        self.seed
    }

    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or_default()
    }
}

/// A port as it stands in memory.
#[inline(always)]
fn raw(port: U16) -> u64 {
    u64::from(u16::from_ne_bytes(port.to_bytes()))
}

/// A product, whose upper half depends on all of the word, and in its lower half both.
#[inline(always)]
const fn fold(word: u64, key: u64) -> u64 {
    let product = word.wrapping_mul(key | 1);
    product ^ product >> 32
}

/// XXH64 of eight-byte words (xxHash specification §"XXH64 algorithm description"), for inputs
/// below 64 bytes, of which there is at most one stripe.
#[inline(always)]
fn xxh64<const N: usize>(seed: u64, words: &[u64; N]) -> u64 {
    const { assert!(N < 8, "one stripe at most") };
    let mut rest = words.as_slice();
    let mut hash = if let [a, b, c, d, tail @ ..] = rest {
        rest = tail;
        let lanes = [
            round(seed.wrapping_add(PRIME_1).wrapping_add(PRIME_2), *a),
            round(seed.wrapping_add(PRIME_2), *b),
            round(seed, *c),
            round(seed.wrapping_sub(PRIME_1), *d),
        ];
        let [v, w, x, y] = lanes;
        let mut hash = v
            .rotate_left(1)
            .wrapping_add(w.rotate_left(7))
            .wrapping_add(x.rotate_left(12))
            .wrapping_add(y.rotate_left(18));
        for lane in lanes {
            hash = (hash ^ round(0, lane))
                .wrapping_mul(PRIME_1)
                .wrapping_add(PRIME_4);
        }
        hash
    } else {
        seed.wrapping_add(PRIME_5)
    };
    hash = hash.wrapping_add(8 * N as u64);
    for word in rest {
        hash = (hash ^ round(0, *word))
            .rotate_left(27)
            .wrapping_mul(PRIME_1)
            .wrapping_add(PRIME_4);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(PRIME_2);
    hash = (hash ^ hash >> 29).wrapping_mul(PRIME_3);
    hash ^ hash >> 32
}

#[inline(always)]
fn round(accumulator: u64, word: u64) -> u64 {
    accumulator
        .wrapping_add(word.wrapping_mul(PRIME_2))
        .rotate_left(31)
        .wrapping_mul(PRIME_1)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::IpAddr;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const KEY: Key = Key {
        seed: 1,
        words: [2, 3, 5, 7, 11],
    };

    fn reference(words: &[u64], key: &Key) -> u64 {
        let bytes: Vec<u8> = words
            .iter()
            .zip(key.words)
            .flat_map(|(word, k)| (word ^ k).to_le_bytes())
            .collect();
        xxhash_rust::xxh64::xxh64(&bytes, key.seed)
    }

    proptest! {
        #[test]
        fn every_length_agrees_with_xxhash_rust(words: [u64; 5], key: [u64; 6]) {
            let [seed, a, b, c, d, e] = key;
            let key = Key { seed, words: [a, b, c, d, e] };
            let [v, w, x, y, _] = words;
            prop_assert_eq!(key.hash(&[v]), reference(&[v], &key));
            prop_assert_eq!(key.hash(&[v, w]), reference(&[v, w], &key));
            prop_assert_eq!(key.hash(&[v, w, x]), reference(&[v, w, x], &key));
            prop_assert_eq!(key.hash(&[v, w, x, y]), reference(&[v, w, x, y], &key));
            prop_assert_eq!(key.hash(&words), reference(&words, &key));
        }
    }

    /// Nodes of one deployment may run different releases: these values must never change.
    #[test]
    fn golden_vectors() {
        let v4 = |last| Address::from(IpAddr::from([192, 0, 2, last]));
        let v6 = |last| Address::from(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]));
        let (port, web) = (U16::new(40_000), U16::new(80));
        let key = Key::derive(&core::array::from_fn(|i| u8::try_from(i).unwrap()), 1);
        let found = [
            key.table(v4(1), port, 6),
            key.table(v6(1), port, 17),
            key.select(v4(1), port, v4(2), web, 6),
            key.select(v6(1), port, v6(2), web, 17),
            key.select_with_sequence(v4(1), port, v4(2), web, 6, 0xdead_beef),
            key.select(v4(1), U16::ZERO, Address::UNSPECIFIED, U16::ZERO, 0),
        ];
        assert_eq!(found, GOLDEN, "found {found:#018x?}");
    }

    const GOLDEN: [u64; 6] = [
        0xe258_c989_b7c2_13a4,
        0x53be_79e7_9b2a_91cc,
        0x6c6c_cec6_3baf_7c38,
        0x520a_bd0b_7a9e_c99c,
        0x7658_5394_432a_b8b0,
        0x57bc_b1cf_bb2d_2730,
    ];

    #[test]
    fn keys_of_different_purposes_or_secrets_differ() {
        let one = Key::derive(&[7; 32], 1);
        assert_ne!(one, Key::derive(&[7; 32], 2));
        assert_ne!(one, Key::derive(&[8; 32], 1));
        assert_ne!(KEY, one);
    }
}
