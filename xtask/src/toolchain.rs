//! Finds what compiles and links BPF: a `rustc` with a `core` for `bpfel-unknown-none`, and
//! bpf-linker.
//!
//! Stable Rust ships no `core` for BPF. It can be had in three ways, tried in this order: the
//! compiler that the user names, rustup's nightly with the `rust-src` component (which compiles
//! `core` along with us), and Debian's `rustc-web`, which brings a compiled one. [`look`] gathers
//! facts and [`choose`] decides, so that the decision can be tested without any of them.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::environment::outside_cargo;

/// The target triple of the kernel programs.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// Names a `rustc` of the user's choice.
pub const RUSTC_VARIABLE: &str = "NLB_BPF_RUSTC";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Where a compiler's `core` for BPF comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// The sysroot holds it, compiled.
    Prebuilt,
    /// The sysroot holds its source, and cargo compiles it (`-Zbuild-std=core`).
    Source,
}

/// Which of the three ways a compiler was found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `NLB_BPF_RUSTC`.
    Named,
    /// rustup's nightly.
    Nightly,
    /// Debian's package.
    Debian,
}

/// One compiler that is there, whether or not it can build BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The `rustc` itself, never one of rustup's proxies where that can be known.
    pub rustc: PathBuf,
    /// What it has for BPF.
    pub core: Option<Core>,
}

/// What [`look`] saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The compiler in `NLB_BPF_RUSTC`.
    pub named: Option<Found>,
    /// rustup's nightly.
    pub nightly: Option<Found>,
    /// `/usr/bin/rustc`.
    pub debian: Option<Found>,
}

/// A compiler that can build BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// The `rustc` itself.
    pub rustc: PathBuf,
    /// Where its `core` comes from.
    pub core: Core,
    /// How it was found.
    pub origin: Origin,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            Origin::Named => "named by NLB_BPF_RUSTC",
            Origin::Nightly => "rustup's nightly",
            Origin::Debian => "Debian's",
        };
        let core = match self.core {
            Core::Prebuilt => "core prebuilt",
            Core::Source => "core from rust-src",
        };
        write!(f, "{} ({origin}, {core})", self.rustc.display())
    }
}

/// Why no compiler was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The user named a compiler and it cannot build BPF. Taking another one in silence would hide
    /// the mistake.
    NamedHasNoCore(PathBuf),
    /// There is a nightly; only its component `rust-src` is missing.
    NightlyHasNoSource,
    /// Nothing is there.
    Everything,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NamedHasNoCore(rustc) => write!(
                f,
                "{RUSTC_VARIABLE} names {}, whose sysroot has neither lib/rustlib/{BPF_TARGET} nor \
                 the source of core (lib/rustlib/src/rust/library/core): add one of them, or unset \
                 {RUSTC_VARIABLE}",
                rustc.display()
            ),
            Self::NightlyHasNoSource => write!(
                f,
                "no compiler for BPF: rustup's nightly is here but lacks its component rust-src. \
                 Run `cargo xtask setup`, or `rustup component add rust-src --toolchain nightly`"
            ),
            Self::Everything => write!(
                f,
                "no compiler for BPF: there is neither rustup's nightly with rust-src nor Debian's \
                 rustc-web with libstd-rust-web-dev-bpf. Run `cargo xtask setup`"
            ),
        }
    }
}

impl std::error::Error for Missing {}

/// Finds the compiler for BPF.
pub fn find_compiler() -> Result<Compiler> {
    Ok(choose(&look()?)?)
}

/// Decides between the compilers that are there.
pub fn choose(facts: &Facts) -> Result<Compiler, Missing> {
    let usable = |found: &Option<Found>, origin| {
        let found = found.as_ref()?;
        Some(Compiler {
            rustc: found.rustc.clone(),
            core: found.core?,
            origin,
        })
    };
    if let Some(named) = &facts.named {
        return usable(&facts.named, Origin::Named)
            .ok_or_else(|| Missing::NamedHasNoCore(named.rustc.clone()));
    }
    usable(&facts.nightly, Origin::Nightly)
        .or_else(|| usable(&facts.debian, Origin::Debian))
        .ok_or(if facts.nightly.is_some() {
            Missing::NightlyHasNoSource
        } else {
            Missing::Everything
        })
}

/// Looks for compilers on this machine.
///
/// The only error is a `NLB_BPF_RUSTC` that does not run; the other compilers may be absent.
pub fn look() -> Result<Facts> {
    let named = env::var_os(RUSTC_VARIABLE).filter(|value| !value.is_empty());
    let named = match named.map(PathBuf::from) {
        Some(rustc) => {
            let sysroot = sysroot_of(outside_cargo(&rustc))
                .with_context(|| format!("{RUSTC_VARIABLE} names {}", rustc.display()))?;
            Some(Found {
                core: core_in(&sysroot),
                rustc,
            })
        }
        None => None,
    };
    let mut rustup = outside_cargo(Path::new("rustup"));
    // Without this, rustup would download a nightly instead of saying that there is none.
    rustup
        .env("RUSTUP_AUTO_INSTALL", "0")
        .args(["run", "nightly", "rustc"]);
    let nightly = sysroot_of(rustup).ok().map(|sysroot| Found {
        // Not the one with a compiled core: rustup has none for BPF.
        core: core_in(&sysroot),
        rustc: sysroot.join("bin/rustc"),
    });
    // Where this is rustup's proxy, its sysroot is some toolchain's without a core for BPF.
    let debian = sysroot_of(outside_cargo(Path::new(DEBIAN_RUSTC)))
        .ok()
        .map(|sysroot| Found {
            // Debian's rust-src belongs to another package and may be of another version.
            core: core_in(&sysroot).filter(|core| *core == Core::Prebuilt),
            rustc: PathBuf::from(DEBIAN_RUSTC),
        });
    Ok(Facts {
        named,
        nightly,
        debian,
    })
}

fn core_in(sysroot: &Path) -> Option<Core> {
    let rustlib = sysroot.join("lib/rustlib");
    if holds_core(&rustlib.join(BPF_TARGET).join("lib")) {
        Some(Core::Prebuilt)
    } else if rustlib.join("src/rust/library/core").is_dir() {
        Some(Core::Source)
    } else {
        None
    }
}

/// An empty folder of the target's name is left behind by removed packages, so look inside.
fn holds_core(libraries: &Path) -> bool {
    fs::read_dir(libraries).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn sysroot_of(mut rustc: Command) -> Result<PathBuf> {
    let output = rustc
        .args(["--print", "sysroot"])
        .output()
        .context("it does not start")?;
    if !output.status.success() {
        bail!(
            "`--print sysroot` fails ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// Finds bpf-linker where cargo installs programs or on `PATH`.
pub fn find_linker() -> Result<PathBuf> {
    search_path()
        .into_iter()
        .map(|folder| folder.join("bpf-linker"))
        .find(|program| program.is_file())
        .context("bpf-linker is neither on PATH nor in cargo's bin folder: run `cargo xtask setup`")
}

/// `PATH` followed by cargo's bin folders, which a build started by an editor may not have in it.
pub fn search_path() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default();
    let homes = [
        env::var_os("CARGO_HOME").map(PathBuf::from),
        env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")),
    ];
    for bin in homes.into_iter().flatten().map(|home| home.join("bin")) {
        if !folders.contains(&bin) {
            folders.push(bin);
        }
    }
    folders
}

/// The cargo that goes with a compiler: with `core` from source their versions must agree, so
/// the neighbour of that `rustc` is taken. Otherwise the cargo that runs us serves.
pub fn cargo_for(compiler: &Compiler) -> OsString {
    let neighbour = compiler.rustc.with_file_name("cargo");
    if compiler.core == Core::Source && neighbour.is_file() {
        return neighbour.into_os_string();
    }
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rustc: &str, core: Option<Core>) -> Found {
        Found {
            rustc: rustc.into(),
            core,
        }
    }

    #[test]
    fn a_named_compiler_wins_over_all_others() {
        let facts = Facts {
            named: Some(found("/opt/rustc", Some(Core::Source))),
            nightly: Some(found("/nightly/rustc", Some(Core::Source))),
            debian: Some(found("/usr/bin/rustc", Some(Core::Prebuilt))),
        };
        let chosen = choose(&facts).unwrap();
        assert_eq!(chosen.rustc, Path::new("/opt/rustc"));
        assert_eq!((chosen.core, chosen.origin), (Core::Source, Origin::Named));
    }

    #[test]
    fn a_named_compiler_without_core_is_an_error_even_if_another_would_do() {
        let facts = Facts {
            named: Some(found("/opt/rustc", None)),
            debian: Some(found("/usr/bin/rustc", Some(Core::Prebuilt))),
            ..Facts::default()
        };
        let missing = choose(&facts).unwrap_err();
        assert_eq!(missing, Missing::NamedHasNoCore("/opt/rustc".into()));
        assert!(missing.to_string().contains(RUSTC_VARIABLE));
    }

    #[test]
    fn nightly_with_source_wins_over_debian() {
        let facts = Facts {
            nightly: Some(found("/nightly/rustc", Some(Core::Source))),
            debian: Some(found("/usr/bin/rustc", Some(Core::Prebuilt))),
            ..Facts::default()
        };
        assert_eq!(choose(&facts).unwrap().origin, Origin::Nightly);
    }

    #[test]
    fn nightly_without_source_gives_way_to_debian() {
        let facts = Facts {
            nightly: Some(found("/nightly/rustc", None)),
            debian: Some(found("/usr/bin/rustc", Some(Core::Prebuilt))),
            ..Facts::default()
        };
        let chosen = choose(&facts).unwrap();
        assert_eq!(
            (chosen.core, chosen.origin),
            (Core::Prebuilt, Origin::Debian)
        );
    }

    #[test]
    fn what_is_missing_says_what_to_run() {
        let half = Facts {
            nightly: Some(found("/nightly/rustc", None)),
            ..Facts::default()
        };
        assert_eq!(choose(&half), Err(Missing::NightlyHasNoSource));
        assert_eq!(choose(&Facts::default()), Err(Missing::Everything));
        assert!(
            Missing::Everything
                .to_string()
                .contains("cargo xtask setup")
        );
    }
}
