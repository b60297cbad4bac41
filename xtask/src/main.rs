//! What a person types, and what continuous integration runs: `cargo xtask …`.
#![forbid(unsafe_code)]

mod book;
mod deb;
mod fuzz;
mod lint;
mod packages;
mod program;
mod roots;
mod run;
mod setup;
mod suites;
mod tally;
mod test;

use std::{env, process::ExitCode};

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask: everything that is done with this repository

  cargo xtask setup                install what is missing: a compiler and a linker for BPF,
                                   the programs that the tests use, and mdBook. Says what it
                                   does before it does it; a second run finds nothing to do
  cargo xtask demo                 build nlb, put it between a client and web servers in
                                   network namespaces of this machine, and show it at work
      --json FILE                    also write what was measured
      --keep                         leave the namespaces for a look around
  cargo xtask test                 every check, from the cheapest to network namespaces;
                                   goes on after a failure and ends with a summary
      --quick                        without setup, without fuzzing and without what needs root
  cargo xtask fuzz                 random packets and configurations that learn from what they
                                   reach; takes rustup's nightly and cargo-fuzz
      --seconds N                    for so long each, instead of 20
  cargo xtask bench [PART ...]     measures, and writes docs/benchmarks.md, its JSON and its plots;
                                   needs a machine that is left alone for twenty minutes. Parts:
                                   cost (what a packet costs, in nanoseconds), designs (flow
                                   tables), forwarding (beside routing, nftables, HAProxy and
                                   nginx), change (connections broken), scale (large tables)
      --quick                        fewer rows and rounds, and nothing is written
      --json FILE                    also write what was measured
  cargo xtask deb                  builds the Debian package, and says where it is
      --dev                          from what `cargo build` compiles, as the tests do
  cargo xtask book                 the documentation as a site, target/book/index.html
  cargo xtask lint                 the rules that no compiler checks: who may name aya, who
                                   may write `unsafe`
  cargo xtask help                 this text

The kernel's part needs root (or sudo). The compiler for BPF is looked for in this order:
NLB_BPF_RUSTC (a path), rustup's nightly with rust-src, Debian's rustc-web.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one subcommand: `false` where it has already said what went wrong.
fn dispatch(arguments: &[String]) -> Result<bool> {
    let (command, rest) = arguments
        .split_first()
        .map_or(("help", arguments), |(first, rest)| (first, rest));
    match command {
        "setup" => {
            takes(command, rest, &[])?;
            setup::everything()?;
        }
        "demo" => program::DEMO.become_it(rest)?,
        "bench" => program::BENCH.become_it(rest)?,
        "test" => {
            takes(command, rest, &["--quick"])?;
            return test::test(!rest.is_empty());
        }
        "deb" => {
            takes(command, rest, &["--dev"])?;
            deb::deb(if rest.is_empty() {
                deb::Profile::Release
            } else {
                deb::Profile::Dev
            })?;
        }
        "fuzz" => return fuzz::fuzz(rest),
        "book" => {
            takes(command, rest, &[])?;
            book::book()?;
        }
        "lint" => {
            takes(command, rest, &[])?;
            return lint::lint();
        }
        "help" | "--help" | "-h" => print!("{HELP}"),
        other => bail!("there is no `cargo xtask {other}`; `cargo xtask help` lists what there is"),
    }
    Ok(true)
}

fn takes(command: &str, arguments: &[String], known: &[&str]) -> Result<()> {
    match arguments
        .iter()
        .find(|argument| !known.contains(&argument.as_str()))
    {
        Some(unknown) => bail!("`cargo xtask {command}` does not take `{unknown}`"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_or_option_is_refused_and_nothing_runs() {
        for words in [
            &["tset"][..],
            &["test", "--fast"],
            &["lint", "--quick"],
            &["book", "--open"],
            &["fuzz", "--seconds"],
            &["fuzz", "--seconds", "0"],
        ] {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            dispatch(&words).unwrap_err();
        }
    }
}
