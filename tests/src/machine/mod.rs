//! A machine that executes the packet program instruction by instruction, and counts.
//!
//! The kernel says how long a program takes, never how much it does; on a busy or a virtual machine
//! the first is a matter of luck, the second is the same on every one. So this is an interpreter of
//! BPF (RFC 9669) over the very object that the daemon loads, with maps that hold the records of the
//! memory body's tables ([`maps`]), and with those of the kernel's helpers that the packet path
//! calls ([`helpers`]). It needs neither root nor a kernel.
//!
//! What it counts are instructions as the compiler wrote them. The kernel changes some: it makes the
//! look-up of an array, the time and a jump to another stage a few instructions of their own, and it
//! removes what the loader's constants say is never reached. Calls of helpers and jumps between
//! programs are therefore counted beside the instructions.
//!
//! * [`code`]: the programs as instructions.
//! * [`memory`]: what they can reach.
//! * [`arithmetic`]: what an instruction computes, and when it jumps.

mod arithmetic;
mod code;
mod helpers;
mod maps;
mod memory;

use anyhow::{Context as _, Result, bail, ensure};
use nlb_common::{settings::Settings, stage::Stage};
use nlb_ebpf::memory::{MemoryFrame, MemoryTables};

use self::{
    arithmetic::{Width, alu, jumps, swap_bytes},
    code::{Code, Instruction},
    maps::Maps,
    memory::Memory,
};
use crate::kernel::Answer;

/// Bytes of stack of a program (`MAX_BPF_STACK`).
const STACK_BYTES: usize = 512;
/// Bytes of `struct xdp_md`.
const CONTEXT_BYTES: usize = 24;
/// Bytes that a frame may grow by at its end.
const TAILROOM_BYTES: usize = 512;
/// More than any story has; a loop that never ends would go on for longer.
const MOST_INSTRUCTIONS: u64 = 1 << 20;

/// What a frame took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Instructions.
    pub instructions: u64,
    /// Calls of the kernel's helpers, without tail calls.
    pub helper_calls: u64,
    /// Jumps to another program.
    pub tail_calls: u64,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub answer: Answer,
    /// The interface that it is redirected to, if any.
    pub redirected_to: Option<u32>,
    /// The frame as it leaves.
    pub frame: Vec<u8>,
    /// What that took.
    pub work: Work,
}

/// A function that was called from another one: what it goes back to.
struct Caller {
    program_counter: usize,
    saved: [u64; 4],
    frame_pointer: u64,
}

/// The machine, with one frame in it.
pub struct Machine<'c> {
    code: &'c Code,
    program: &'c [Instruction],
    program_counter: usize,
    registers: [u64; 11],
    callers: Vec<Caller>,
    memory: Memory,
    maps: Maps,
    /// Addresses of the context, of the frame's first byte, and of the byte behind its last.
    context: u64,
    data: u64,
    data_end: u64,
    jiffies: u64,
    redirected_to: Option<u32>,
    work: Work,
}

/// The packet program, read once.
pub struct Program {
    code: Code,
    buckets: usize,
}

impl Program {
    /// Reads the daemon's object, for tables with so many buckets, sources and listeners that pin
    /// on change.
    pub fn read(object: &[u8], tables: &MemoryTables) -> Result<Self> {
        let bucket_mask = u32::try_from(tables.buckets.len() - 1)?;
        let settings = Settings {
            select_key: tables.select_key,
            table_key: tables.table_key,
            bucket_mask,
            near_mask: u32::try_from(tables.spills.len() - 1)?,
            log_faults: 1,
            // A tick of these tables is a jiffy of this machine.
            tick_shift: 0,
            translates_sources: tables.translates_sources.into(),
            pins_on_change: tables.pins_on_change.into(),
            makes_cookies: tables.makes_cookies.into(),
            reserved: 0,
        };
        Ok(Self {
            code: Code::read(object, &settings)?,
            buckets: tables.buckets.len(),
        })
    }

    /// Executes the program on a frame, over a copy of what the tables hold.
    pub fn run(&self, tables: &mut MemoryTables, frame: &MemoryFrame) -> Result<Outcome> {
        ensure!(
            tables.buckets.len() == self.buckets,
            "the program was read for {} buckets",
            self.buckets
        );
        Machine::with(&self.code, tables, frame)?.run()
    }
}

impl<'c> Machine<'c> {
    fn with(code: &'c Code, tables: &mut MemoryTables, frame: &MemoryFrame) -> Result<Self> {
        let mut memory = Memory::default();
        let context = memory.add(vec![0; CONTEXT_BYTES]);
        memory.store(context + 12, 4, frame.interface.into())?;
        let mut buffer = vec![0; frame.headroom_bytes];
        buffer.extend(&frame.bytes);
        buffer.resize(buffer.len() + TAILROOM_BYTES, 0);
        let data = memory.add(buffer) + frame.headroom_bytes as u64;
        let maps = Maps::fill(&code.maps, tables, &mut memory)?;
        let mut registers = [0; 11];
        registers[1] = context;
        registers[10] = memory.add(vec![0; STACK_BYTES]) + STACK_BYTES as u64;
        Ok(Self {
            code,
            program: program(code, Stage::FRONT_PROGRAM)?,
            program_counter: 0,
            registers,
            callers: Vec::new(),
            memory,
            maps,
            context,
            data,
            data_end: data + frame.bytes.len() as u64,
            jiffies: tables.now.get().into(),
            redirected_to: None,
            work: Work::default(),
        })
    }

    fn run(mut self) -> Result<Outcome> {
        let verdict = loop {
            ensure!(
                self.work.instructions < MOST_INSTRUCTIONS,
                "the program does not end"
            );
            let at = self.program_counter;
            if let Some(verdict) = self
                .step()
                .with_context(|| format!("at instruction {at}"))?
            {
                break verdict;
            }
        };
        let length = usize::try_from(self.data_end - self.data)?;
        Ok(Outcome {
            answer: match verdict {
                1 => Answer::Drop,
                2 => Answer::Pass,
                3 => Answer::Transmit,
                4 => Answer::Redirect,
                other => bail!("the program returned {other}"),
            },
            redirected_to: self.redirected_to,
            frame: self.memory.bytes(self.data, length)?.to_vec(),
            work: self.work,
        })
    }

    /// Executes one instruction; returns what the program returned, if it did.
    fn step(&mut self) -> Result<Option<u64>> {
        let instruction = *self
            .program
            .get(self.program_counter)
            .context("behind the program's end")?;
        self.program_counter += 1;
        self.work.instructions += 1;
        let Instruction {
            opcode,
            destination,
            source,
            offset,
            immediate,
        } = instruction;
        let value = self.registers[destination];
        // Sign-extended, as the instruction set has it (RFC 9669 §4).
        let constant = i64::from(immediate).cast_unsigned();
        let operand = if opcode & 8 == 0 {
            constant
        } else {
            self.registers[source]
        };
        let width = size_bytes(opcode);
        match opcode & 7 {
            // BPF_LD: a number of 64 bits, or a map.
            0 => self.registers[destination] = self.wide(opcode, source, immediate)?,
            // BPF_LDX.
            1 => {
                ensure!(opcode & 0xe0 == 0x60, "unknown load {opcode:#x}");
                let address = moved(self.registers[source], offset);
                self.registers[destination] = self.load(address, width)?;
            }
            // BPF_ST and BPF_STX.
            2 => self.memory.store(moved(value, offset), width, constant)?,
            3 if opcode & 0xe0 == 0xc0 => self.atomic(instruction)?,
            3 => {
                let stored = self.registers[source];
                self.memory.store(moved(value, offset), width, stored)?;
            }
            class @ (4 | 7) => {
                let is_wide = class == 7;
                self.registers[destination] = if opcode & 0xf0 == 0xd0 {
                    ensure!(!is_wide, "swapping bytes is an instruction of BPF v4");
                    swap_bytes(value, immediate, opcode & 8 != 0)?
                } else {
                    ensure!(offset == 0, "signed arithmetic is an instruction of BPF v4");
                    alu(opcode >> 4, value, operand, Width::of(is_wide))?
                };
            }
            class => match opcode >> 4 {
                8 => self.call(source, immediate)?,
                9 => return Ok(self.exit()),
                0 => self.jump(offset)?,
                condition => {
                    if jumps(condition, value, operand, Width::of(class == 5))? {
                        self.jump(offset)?;
                    }
                }
            },
        }
        Ok(None)
    }

    fn jump(&mut self, offset: i16) -> Result<()> {
        self.program_counter = self
            .program_counter
            .checked_add_signed(offset.into())
            .context("a jump to in front of the program")?;
        Ok(())
    }

    /// The one instruction that takes two places (RFC 9669 §5.4).
    fn wide(&mut self, opcode: u8, source: usize, low: i32) -> Result<u64> {
        ensure!(opcode == 0x18, "unknown load {opcode:#x}");
        let second = self.program.get(self.program_counter);
        let high = second.context("half an instruction")?.immediate;
        self.program_counter += 1;
        let map = || usize::try_from(low).context("the number of a map");
        match source {
            0 => Ok(u64::from(low.cast_unsigned()) | u64::from(high.cast_unsigned()) << 32),
            // BPF_PSEUDO_MAP_FD and BPF_PSEUDO_MAP_VALUE.
            1 => Ok(maps::handle(map()?)),
            2 => Ok(self.maps.values(map()?)? + u64::from(high.cast_unsigned())),
            other => bail!("a wide load of the unknown kind {other}"),
        }
    }

    /// Loads; the packet's ends are addresses, though four bytes wide in the context.
    fn load(&self, address: u64, width: usize) -> Result<u64> {
        match address.checked_sub(self.context) {
            Some(0) => Ok(self.data),
            Some(4) => Ok(self.data_end),
            _ => self.memory.load(address, width),
        }
    }

    /// Compare-and-swap, and fetch-and-add (RFC 9669 §5.3), of 64 bits.
    fn atomic(&mut self, instruction: Instruction) -> Result<()> {
        let width = size_bytes(instruction.opcode);
        ensure!(width == 8, "atomics of {width} bytes are not known here");
        let base = self.registers[instruction.destination];
        let address = moved(base, instruction.offset);
        let old = self.memory.load(address, 8)?;
        let operand = self.registers[instruction.source];
        match instruction.immediate {
            0xf1 => {
                if old == self.registers[0] {
                    self.memory.store(address, 8, operand)?;
                }
                self.registers[0] = old;
            }
            0x01 => {
                self.registers[instruction.source] = old;
                self.memory.store(address, 8, old.wrapping_add(operand))?;
            }
            other => bail!("an atomic of the unknown kind {other:#x}"),
        }
        Ok(())
    }

    /// Calls a function of the program, or a helper.
    fn call(&mut self, kind: usize, immediate: i32) -> Result<()> {
        if kind == 0 {
            return self.help(immediate);
        }
        ensure!(kind == 1, "a call of the unknown kind {kind}");
        self.callers.push(Caller {
            program_counter: self.program_counter,
            saved: [6, 7, 8, 9].map(|register: usize| self.registers[register]),
            frame_pointer: self.registers[10],
        });
        self.registers[10] = self.memory.add(vec![0; STACK_BYTES]) + STACK_BYTES as u64;
        self.program_counter = self
            .program_counter
            .checked_add_signed(isize::try_from(immediate)?)
            .context("a call to in front of the program")?;
        Ok(())
    }

    /// Goes back to the caller, or ends the program.
    fn exit(&mut self) -> Option<u64> {
        let Some(caller) = self.callers.pop() else {
            return Some(self.registers[0]);
        };
        self.program_counter = caller.program_counter;
        self.registers[6..10].copy_from_slice(&caller.saved);
        self.registers[10] = caller.frame_pointer;
        None
    }
}

fn program<'c>(code: &'c Code, name: &str) -> Result<&'c [Instruction]> {
    let program = code.programs.get(name);
    Ok(program.with_context(|| format!("no program {name}"))?)
}

fn moved(base: u64, offset: i16) -> u64 {
    base.wrapping_add_signed(offset.into())
}

/// Bytes that a load or store moves.
const fn size_bytes(opcode: u8) -> usize {
    match opcode & 0x18 {
        0x00 => 4,
        0x08 => 2,
        0x10 => 1,
        _ => 8,
    }
}
