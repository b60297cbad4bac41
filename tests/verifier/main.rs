//! Budgets of the kernel programs: what the verifier has to follow, and the stack that they use.
//!
//! Both have hard limits in the kernel, a million instructions and 512 bytes, and both grow
//! unnoticed. Here a change that needs more than `budget.toml` grants fails, so that granting more
//! is a decision that a reviewer sees. `NLB_BLESS=1` writes what is used now, and a tenth more
//! where it depends on the kernel's version.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use aya::{Ebpf, programs::Xdp};
use nlb_common::stage::Stage;
use nlb_tests::{
    kernel::{self, Kernel, unavailable},
    stack, world,
};
use nlb_userspace::dataplane::{DECAP_OBJECT, XDP_OBJECT};
use serde::{Deserialize, Serialize};

/// What one program may use, or uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Use {
    /// Instructions that the verifier follows, each as often as it does.
    verified_instructions: u32,
    /// Instructions of the program.
    instructions: u32,
    /// Bytes of stack.
    stack_bytes: u16,
}

const BUDGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/verifier/budget.toml");

/// All programs, by name.
fn used() -> Result<BTreeMap<String, Use>> {
    let mut used = balancer()?;
    used.insert(DECAP.to_owned(), decap()?);
    Ok(used)
}

/// The targets' program.
const DECAP: &str = "decap";

fn decap() -> Result<Use> {
    let size = stack::programs(DECAP_OBJECT)?
        .remove(DECAP)
        .with_context(|| format!("no symbol {DECAP}"))?;
    let mut object = Ebpf::load(DECAP_OBJECT)?;
    let program: &mut Xdp = object
        .program_mut(DECAP)
        .context("no program")?
        .try_into()?;
    program.load()?;
    let verified_instructions = program.info()?.verified_instruction_count();
    Ok(Use {
        verified_instructions: verified_instructions.context("this kernel does not say")?,
        instructions: size.instructions,
        stack_bytes: size.stack_bytes,
    })
}

/// The load balancer's programs.
fn balancer() -> Result<BTreeMap<String, Use>> {
    let sizes = stack::programs(XDP_OBJECT)?;
    kernel::in_lab(|| {
        let kernel = Kernel::load(XDP_OBJECT, &mut world::tables())?;
        let names = Stage::ALL.iter().map(|stage| stage.program());
        names
            .chain([Stage::FRONT_PROGRAM])
            .map(|name| {
                let size = sizes
                    .get(name)
                    .with_context(|| format!("no symbol {name}"))?;
                let used = Use {
                    verified_instructions: kernel.verified_instructions(name)?,
                    instructions: size.instructions,
                    stack_bytes: size.stack_bytes,
                };
                Ok((name.to_owned(), used))
            })
            .collect()
    })?
}

#[test]
fn no_program_uses_more_than_its_budget() -> Result<()> {
    if let Some(reason) = unavailable() {
        println!("SKIPPED verifier: {reason}");
        return Ok(());
    }
    let used = used()?;
    if std::env::var_os("NLB_BLESS").is_some() {
        let granted: BTreeMap<&String, Use> = used
            .iter()
            .map(|(name, used)| {
                let followed = used.verified_instructions;
                let granted = Use {
                    verified_instructions: followed + followed / 10,
                    instructions: used.instructions + used.instructions / 50,
                    ..*used
                };
                (name, granted)
            })
            .collect();
        let text = format!(
            "# What each program may use; see main.rs. Written by NLB_BLESS=1.\n\n{}",
            toml::to_string(&granted)?
        );
        return std::fs::write(BUDGET, text).context("writing the budget");
    }
    let text = std::fs::read_to_string(Path::new(BUDGET)).context("reading the budget")?;
    let granted: BTreeMap<String, Use> = toml::from_str(&text).context("budget.toml")?;
    let mut over = Vec::new();
    for (name, used) in &used {
        println!("{name}: {used:?}");
        let granted = granted
            .get(name)
            .with_context(|| format!("budget.toml has no program {name}"))?;
        let mut compare = |what: &str, used: u32, granted: u32| {
            if used > granted {
                over.push(format!("{name} uses {used} {what} of {granted}"));
            }
        };
        compare(
            "verified instructions",
            used.verified_instructions,
            granted.verified_instructions,
        );
        compare("instructions", used.instructions, granted.instructions);
        compare(
            "bytes of stack",
            used.stack_bytes.into(),
            granted.stack_bytes.into(),
        );
    }
    ensure!(
        over.is_empty(),
        "{}; if that is meant, NLB_BLESS=1 writes budget.toml anew",
        over.join("; ")
    );
    let gone: Vec<_> = granted
        .keys()
        .filter(|name| !used.contains_key(*name))
        .collect();
    ensure!(
        gone.is_empty(),
        "budget.toml names programs that are gone: {gone:?}"
    );
    Ok(())
}
