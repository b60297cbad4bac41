//! How large a BPF program is and how much stack it uses, read from its instructions: the kernel
//! says so only in the verifier's log.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

/// A program's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Instructions.
    pub instructions: u32,
    /// Bytes of stack.
    pub stack_bytes: u16,
}

/// The programs of an object, by name.
pub fn programs(elf: &[u8]) -> Result<BTreeMap<String, Size>> {
    let file = object::File::parse(elf).context("the object")?;
    let mut sizes = BTreeMap::new();
    for symbol in file.symbols() {
        let Some(section) = symbol.section_index() else {
            continue;
        };
        if symbol.kind() != SymbolKind::Text || symbol.size() == 0 {
            continue;
        }
        let code = file
            .section_by_index(section)?
            .data_range(symbol.address(), symbol.size())?
            .context("a symbol outside of its section")?;
        sizes.insert(symbol.name()?.to_owned(), size(code));
    }
    Ok(sizes)
}

/// The frame pointer: BPF's r10 (RFC 9669 §2).
const FRAME_POINTER: u8 = 10;
/// The instruction classes that add a constant to a register, and load or store (RFC 9669 §3).
const CLASS: u8 = 0x07;
const ALU64: u8 = 0x07;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
/// `dst = src`, and `dst += immediate`, of 64 bits.
const MOVE: u8 = 0xbf;
const ADD_IMMEDIATE: u8 = 0x07;
/// The instruction that takes two places (RFC 9669 §5.4).
const LOAD_IMMEDIATE_64: u8 = 0x18;

/// The lowest place below the frame pointer that the code names.
fn size(code: &[u8]) -> Size {
    let mut lowest = 0i32;
    // Registers that are copies of the frame pointer, since the last instruction that made one.
    let mut copies = 0u16;
    let mut second_half = false;
    let instructions = code.chunks_exact(8);
    let count = instructions.len();
    for instruction in instructions {
        let &[opcode, registers, o0, o1, i0, i1, i2, i3] = instruction else {
            continue;
        };
        if std::mem::take(&mut second_half) {
            continue;
        }
        second_half = opcode == LOAD_IMMEDIATE_64;
        let (destination, source) = (registers & 15, registers >> 4);
        let offset = i32::from(i16::from_le_bytes([o0, o1]));
        let immediate = i32::from_le_bytes([i0, i1, i2, i3]);
        let is_copy = copies & 1 << destination != 0;
        match opcode & CLASS {
            LDX if source == FRAME_POINTER => lowest = lowest.min(offset),
            ST | STX if destination == FRAME_POINTER => lowest = lowest.min(offset),
            ALU64 if opcode == ADD_IMMEDIATE && is_copy => lowest = lowest.min(immediate),
            _ => {}
        }
        copies &= !(1 << destination);
        if opcode == MOVE && source == FRAME_POINTER {
            copies |= 1 << destination;
        }
    }
    Size {
        instructions: u32::try_from(count).unwrap_or(u32::MAX),
        stack_bytes: u16::try_from(-lowest).unwrap_or(u16::MAX),
    }
}
