//! The tutorial, as its readers go through it: every block of commands of a chapter, pasted one after
//! the other, prints what the chapter shows, and the last one leaves nothing behind.

mod page;
mod shell;
mod shown;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use self::{
    page::{Step, steps},
    shell::Shell,
};

/// What a chapter must not leave: hosts, files and pins of nlb's, and servers that run on.
const LEFT: &str = "\
    ip netns list
    find ~ /run /var/lib /sys/fs/bpf -name '*nlb*'
    ls /proc | grep -x '[0-9]*' | while read pid; do
        grep -sx -e nlb -e python3 /proc/$pid/comm || true
    done";

fn goes_as_shown(chapter: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED tutorial {chapter}: not root");
        return Ok(());
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/tutorial")
        .join(chapter);
    let steps = steps(&fs::read_to_string(&page)?);
    ensure!(steps.len() > 5, "{chapter} has only {} blocks", steps.len());
    let mut shell = Shell::start()?;
    for step in &steps {
        shell
            .paste(step)
            .with_context(|| format!("docs/tutorial/{chapter}:{}", step.line))?;
    }
    let nothing_left = Step {
        line: 0,
        commands: LEFT.to_owned(),
        shown: Some(String::new()),
    };
    shell
        .paste(&nothing_left)
        .with_context(|| format!("left behind by docs/tutorial/{chapter}"))
}

#[test]
fn the_chapter_on_two_arms_goes_as_shown_and_leaves_nothing_behind() -> Result<()> {
    goes_as_shown("two-arm.md")
}

#[test]
fn the_chapter_on_one_arm_goes_as_shown_and_leaves_nothing_behind() -> Result<()> {
    goes_as_shown("one-arm.md")
}

#[test]
fn the_chapter_on_direct_server_return_goes_as_shown_and_leaves_nothing_behind() -> Result<()> {
    goes_as_shown("dsr.md")
}
