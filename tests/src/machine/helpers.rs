//! Those of the kernel's helpers that the counted paths call (`linux/bpf.h`).

use anyhow::{Context as _, Result, bail};
use nlb_common::stage::Stage;

use super::{Machine, program};

/// The helpers' numbers.
mod number {
    pub(super) const LOOK_UP: i32 = 1;
    pub(super) const UPDATE: i32 = 2;
    pub(super) const TAIL_CALL: i32 = 12;
    pub(super) const REDIRECT: i32 = 23;
    pub(super) const ADJUST_HEAD: i32 = 44;
    pub(super) const ADJUST_TAIL: i32 = 65;
    pub(super) const JIFFIES: i32 = 118;
    pub(super) const RING_OUTPUT: i32 = 130;
    pub(super) const BUFFER_LENGTH: i32 = 188;
}

/// `XDP_REDIRECT`.
const REDIRECT: u64 = 4;

impl Machine<'_> {
    /// Calls a helper: arguments in registers 1 to 5, which are lost, and the result in 0.
    pub(super) fn help(&mut self, number: i32) -> Result<()> {
        let [_, r1, r2, r3, ..] = self.registers;
        if number == number::TAIL_CALL {
            return self.go_on(r3);
        }
        self.work.helper_calls += 1;
        self.registers[0] = match number {
            number::LOOK_UP => self.maps.look_up(&mut self.memory, r1, r2)?,
            number::UPDATE => {
                self.maps.update(&mut self.memory, r1, r2, r3)?;
                0
            }
            number::REDIRECT => {
                self.redirected_to = Some(u32::try_from(r1)?);
                REDIRECT
            }
            number::ADJUST_HEAD => {
                self.data = self.data.wrapping_add_signed(distance(r2));
                0
            }
            number::ADJUST_TAIL => {
                self.data_end = self.data_end.wrapping_add_signed(distance(r2));
                0
            }
            number::JIFFIES => self.jiffies,
            // Nobody listens.
            number::RING_OUTPUT => 0,
            number::BUFFER_LENGTH => self.data_end - self.data,
            // Whoever needs a route is not on a path that is counted.
            other => bail!("helper {other} is not known here"),
        };
        self.registers[1..6].fill(0);
        Ok(())
    }

    /// Goes on with another stage's program; nothing but the context goes with it.
    fn go_on(&mut self, number: u64) -> Result<()> {
        let stage = usize::try_from(number).ok();
        let stage = stage.and_then(|number| Stage::ALL.get(number));
        let stage = stage.with_context(|| format!("there is no stage {number}"))?;
        self.work.tail_calls += 1;
        self.program = program(self.code, stage.program())?;
        self.program_counter = 0;
        self.callers.clear();
        let frame_pointer = self.registers[10];
        self.registers = [0; 11];
        self.registers[1] = self.context;
        self.registers[10] = frame_pointer;
        Ok(())
    }
}

/// An `int` in the low half of a register.
#[expect(clippy::cast_possible_truncation, reason = "the low half")]
const fn distance(register: u64) -> i64 {
    (register as u32).cast_signed() as i64
}
