//! `cargo xtask setup`: looks for what building and testing nlb takes, says what is missing, and
//! installs that and nothing else.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use xtask::{
    environment::outside_cargo,
    toolchain::{Compiler, Facts, Missing, choose, find_compiler, find_linker, look, search_path},
};

use crate::{
    deb, fuzz,
    packages::{self, Apt, Need},
    run::{Privilege, ask, run},
};

/// The oldest bpf-linker that is known to work, and the series that is installed.
const LINKER: Version = Version {
    major: 0,
    minor: 13,
};

/// The oldest mdBook that says what is wrong with a document's HTML, and the series that is installed.
const MDBOOK: Version = Version { major: 0, minor: 5 };

/// LLVM versions that bpf-linker of that series can be built with.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// As much of a version as decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// Reads the last word of what a program prints about itself: `bpf-linker 0.13.0`, `mdbook v0.5.4`.
    fn of(text: &str) -> Option<Self> {
        let word = text.split_whitespace().last()?;
        let mut numbers = word.trim_start_matches('v').split(['.', '-', '+']);
        let mut number = || numbers.next()?.parse().ok();
        Some(Self {
            major: number()?,
            minor: number()?,
        })
    }
}

/// A bpf-linker that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Linker {
    version: Version,
    /// Unknown where LLVM is linked in statically.
    llvm: Option<u32>,
}

/// Why a linker has to be installed, or nothing.
fn fault_of(linker: Option<Linker>, compiler_llvm: u32) -> Option<String> {
    let Some(linker) = linker else {
        return Some("it is not here".into());
    };
    if linker.version < LINKER {
        let Version { major, minor } = linker.version;
        return Some(format!("the one here is {major}.{minor}"));
    }
    // Newer LLVM reads older bitcode, not the other way round.
    let llvm = linker.llvm.filter(|llvm| *llvm < compiler_llvm)?;
    Some(format!(
        "the one here has LLVM {llvm}, which cannot read LLVM {compiler_llvm}'s bitcode"
    ))
}

/// Looks, installs what is missing for any command but the benchmark, and tells what is there.
pub(crate) fn everything() -> Result<()> {
    setup_with(&packages::FOR_PACKAGE)?;
    fuzzer()?;
    packager()?;
    println!("setup: mdBook            {}", mdbook()?.display());
    Ok(())
}

/// Looks, installs what is missing for building and testing, and packages that only one command uses.
pub(crate) fn setup_with(more: &[Need]) -> Result<()> {
    let mut apt = Apt::look(Privilege::look());
    let mut tools = packages::missing(&packages::TOOLS);
    tools.extend(packages::missing(more));
    let mut facts = look()?;
    if needs_debians_compiler(&facts, apt.as_mut())? {
        tools.extend(packages::COMPILER.map(String::from));
    }
    install(apt.as_mut(), &tools)?;
    if !tools.is_empty() {
        facts = look()?;
    }
    let compiler = match choose(&facts) {
        Err(Missing::NightlyHasNoSource) => {
            add_source()?;
            find_compiler()?
        }
        chosen => chosen.with_context(advice)?,
    };
    let llvm = compiler_llvm(&compiler)?;
    if let Some(fault) = fault_of(linker_here(), llvm) {
        install_linker(apt.as_mut(), llvm, &fault)?;
    }
    summary(&compiler, llvm);
    Ok(())
}

/// Installs cargo-fuzz where rustup has a nightly toolchain to run it with; toolchains stay as they
/// are. Nothing but fuzzing needs it, so a machine on which this fails is still set up.
fn fuzzer() -> Result<()> {
    if look()?.nightly.is_none() {
        println!("setup: fuzzer            none, because rustup has no nightly toolchain");
        return Ok(());
    }
    let compiler = packages::missing(&[packages::CXX]);
    if !compiler.is_empty() {
        let mut apt = Apt::look(Privilege::look());
        if let Err(error) = install(apt.as_mut(), &compiler) {
            println!("setup: {error:#}; fuzzing will be skipped");
            return Ok(());
        }
    }
    if fuzz::find_cargo_fuzz().is_none() {
        println!("setup: installing cargo-fuzz, which runs the fuzz targets; about a minute");
        let mut cargo = outside_cargo(Path::new("cargo"));
        if let Err(error) = run(cargo.args(["install", "cargo-fuzz", "--locked"])) {
            println!("setup: {error:#}; fuzzing will be skipped");
        }
    }
    if let Some(program) = fuzz::find_cargo_fuzz() {
        println!("setup: fuzzer            {}", program.display());
    }
    Ok(())
}

/// Installs cargo-deb, which makes the Debian package.
pub(crate) fn packager() -> Result<()> {
    if deb::find_cargo_deb().is_none() {
        println!("setup: installing cargo-deb, which makes the Debian package; about two minutes");
        let mut cargo = outside_cargo(Path::new("cargo"));
        let version = ["--version", deb::CARGO_DEB, "--locked"];
        run(cargo.args(["install", "cargo-deb"]).args(version))?;
    }
    if let Some(program) = deb::find_cargo_deb() {
        println!("setup: packager          {}", program.display());
    }
    Ok(())
}

/// Where mdBook is; installed if it is missing or too old.
pub(crate) fn mdbook() -> Result<PathBuf> {
    if let Some(program) = find_mdbook() {
        return Ok(program);
    }
    let Version { major, minor } = MDBOOK;
    println!(
        "setup: installing mdBook {major}.{minor}, which builds the documentation's site; about a minute"
    );
    let mut cargo = outside_cargo(Path::new("cargo"));
    cargo
        .args(["install", "mdbook", "--locked", "--force"])
        .args(["--version", &format!("^{major}.{minor}")])
        // It reads forty pages: quick to build is quicker than quick to run.
        .args(["--profile", "dev"])
        .args(["--no-default-features", "--features", "search"]);
    run(&mut cargo)?;
    find_mdbook().context("mdBook was installed, and is not where cargo installs programs")
}

fn find_mdbook() -> Option<PathBuf> {
    let program = search_path()
        .into_iter()
        .map(|folder| folder.join("mdbook"))
        .find(|program| program.is_file())?;
    let version = Version::of(&ask(Command::new(&program).arg("--version"))?)?;
    (version >= MDBOOK).then_some(program)
}

fn needs_debians_compiler(facts: &Facts, apt: Option<&mut Apt>) -> Result<bool> {
    if facts.named.is_some() || choose(facts).is_ok() {
        return Ok(false);
    }
    let rivals = packages::rivals();
    if !rivals.is_empty() {
        println!(
            "setup: Debian's compiler for BPF ({}) conflicts with the installed {}, so it is left \
             alone",
            packages::COMPILER[0],
            rivals.join(", ")
        );
        return Ok(false);
    }
    apt.map_or(Ok(false), |apt| apt.offers(&packages::COMPILER))
}

fn install(apt: Option<&mut Apt>, packages: &[String]) -> Result<()> {
    match apt {
        Some(apt) => apt.install(packages),
        None => packages::by_hand(packages),
    }
}

/// The last resort: it needs rustup's server.
fn add_source() -> Result<()> {
    println!("setup: adding rust-src to rustup's nightly");
    let mut rustup = outside_cargo(Path::new("rustup"));
    run(rustup.args(["component", "add", "rust-src", "--toolchain", "nightly"]))
        .with_context(advice)
}

fn advice() -> String {
    format!(
        "no compiler for BPF can be installed here. One of these helps: `rustup toolchain install \
         nightly --component rust-src`; or, on Debian 12 and newer, `apt-get install {}` (it \
         replaces the packages rustc and rustup, not a rustup in a home folder); or {} naming a \
         rustc that has either",
        packages::COMPILER.join(" "),
        xtask::toolchain::RUSTC_VARIABLE
    )
}

fn install_linker(apt: Option<&mut Apt>, llvm: u32, fault: &str) -> Result<()> {
    let Version { major, minor } = LINKER;
    if !LINKER_LLVM.contains(&llvm) {
        bail!(
            "bpf-linker is needed ({fault}), but {major}.{minor} cannot be built with the \
             compiler's LLVM {llvm}, only with {} to {}: use another compiler, or install a \
             bpf-linker with LLVM {llvm} or newer by hand",
            LINKER_LLVM.start(),
            LINKER_LLVM.end()
        );
    }
    install(apt, &packages::linker_packages(llvm)).with_context(|| {
        format!("bpf-linker has to be built with LLVM {llvm}, as the compiler is")
    })?;
    println!(
        "setup: installing bpf-linker {major}.{minor} (LLVM {llvm}) because {fault}; about two minutes"
    );
    let mut cargo = outside_cargo(Path::new("cargo"));
    cargo
        .args([
            "install",
            "bpf-linker",
            "--version",
            &format!("^{major}.{minor}"),
            "--locked",
        ])
        .args([
            "--force",
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
        ])
        .env("LLVM_PREFIX", packages::llvm_prefix(llvm));
    run(&mut cargo)
}

fn linker_here() -> Option<Linker> {
    let program = find_linker().ok()?;
    let version = Version::of(&ask(Command::new(&program).arg("--version"))?)?;
    let libraries = ask(Command::new("ldd").arg(&program));
    Some(Linker {
        version,
        llvm: libraries.and_then(|libraries| shared_llvm(&libraries)),
    })
}

/// The major version in `libLLVM.so.22.1` or `libLLVM-14.so.1`.
fn shared_llvm(libraries: &str) -> Option<u32> {
    let (_, name) = libraries.split_once("libLLVM")?;
    name.split(|c: char| !c.is_ascii_digit())
        .find_map(|digits| digits.parse().ok())
}

fn compiler_llvm(compiler: &Compiler) -> Result<u32> {
    let mut rustc = outside_cargo(&compiler.rustc);
    let about = ask(rustc.arg("-vV")).unwrap_or_default();
    llvm_of_rustc(&about)
        .with_context(|| format!("`{} -vV` names no LLVM", compiler.rustc.display()))
}

fn llvm_of_rustc(about: &str) -> Option<u32> {
    let version = about
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    Version::of(version).map(|version| version.major)
}

fn summary(compiler: &Compiler, llvm: u32) {
    println!("setup: compiler for BPF  {compiler}, LLVM {llvm}");
    if let (Ok(program), Some(linker)) = (find_linker(), linker_here()) {
        let Version { major, minor } = linker.version;
        let llvm = linker
            .llvm
            .map_or("LLVM inside".into(), |llvm| format!("LLVM {llvm}"));
        println!(
            "setup: linker            {} {major}.{minor}, {llvm}",
            program.display()
        );
    }
    for (component, command) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if ask(crate::run::cargo().args([command, "--version"])).is_none() {
            println!(
                "setup: {component} is missing, which `cargo xtask test` uses: `rustup component add \
                 {component}`"
            );
        }
    }
    let missing = packages::missing(&packages::TOOLS);
    if missing.is_empty() {
        let names = packages::TOOLS
            .iter()
            .map(|need| need.package)
            .collect::<Vec<_>>()
            .join(" ");
        println!("setup: packages          {names}");
    } else {
        println!("setup: still missing     {}", missing.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Linker = Linker {
        version: LINKER,
        llvm: Some(22),
    };

    #[test]
    fn versions_compare_by_number_and_not_by_letter() {
        let version = |text| Version::of(text).unwrap();
        assert!(version("bpf-linker 0.9.15") < version("bpf-linker 0.13.0"));
        assert!(version("bpf-linker 1.0.0") > version("bpf-linker 0.13.2"));
        assert_eq!(version("0.13.0-dev"), LINKER);
        assert_eq!(version("mdbook v0.5.4"), MDBOOK);
        assert_eq!(Version::of("bpf-linker"), None);
    }

    #[test]
    fn a_linker_that_reads_the_compilers_bitcode_is_kept() {
        assert_eq!(fault_of(Some(GOOD), 22), None);
        assert_eq!(fault_of(Some(GOOD), 21), None);
        assert_eq!(fault_of(Some(Linker { llvm: None, ..GOOD }), 22), None);
    }

    #[test]
    fn a_missing_or_too_old_linker_is_replaced_and_the_reason_said() {
        assert!(fault_of(None, 22).is_some());
        assert!(fault_of(Some(GOOD), 23).unwrap().contains("LLVM 22"));
        let old = Linker {
            version: Version { major: 0, minor: 9 },
            ..GOOD
        };
        assert!(fault_of(Some(old), 22).unwrap().contains("0.9"));
    }

    #[test]
    fn llvm_is_read_from_rustc_and_from_shared_libraries() {
        let about = "rustc 1.96.0 (built from a source tarball)\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_of_rustc(about), Some(22));
        assert_eq!(
            shared_llvm("\tlibLLVM.so.22.1 => /usr/lib/libLLVM.so.22.1 (0x7f)"),
            Some(22)
        );
        assert_eq!(
            shared_llvm("\tlibLLVM-14.so.1 => /usr/lib/libLLVM-14.so.1 (0x7f)"),
            Some(14)
        );
        assert_eq!(shared_llvm("\tlibc.so.6 => /lib/libc.so.6 (0x7f)"), None);
    }
}
