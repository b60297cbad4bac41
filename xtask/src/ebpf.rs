//! Compiles the kernel programs of `nlb-ebpf` for BPF and hands over their ELF objects.
//!
//! `nlb-userspace/build.rs` calls [`build`] and embeds what it returns; `tests/build.rs` does the
//! same with [`build_bench`]. It is a cargo inside a cargo: the inner one gets its own target folder, because the outer one holds the lock of its
//! own, and an environment without the outer one's settings.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    environment::outside_cargo,
    toolchain::{
        self, BPF_TARGET, Compiler, Core, RUSTC_VARIABLE, cargo_for, find_compiler, find_linker,
    },
    workspace_root,
};

/// The BPF instruction set. With LLVM 22, `v2` (kernel 4.14) has compare-and-swap and atomic addition
/// whose result is not used; `v3` (kernel 5.1) has the result, too. `load` and `store` of Rust's
/// atomics are selected for `v4` alone, which kernels before 6.6 do not take.
const BPF_CPU: &str = "v2";

/// x86 and arm64 load packet fields unaligned, and so does their BPF; without this feature LLVM
/// composes each field byte by byte.
const BPF_FEATURES: &str = "+allows-misaligned-mem-access";

/// What the objects depend on besides the compiler, relative to the workspace root.
const INPUTS: [&str; 6] = [
    "Cargo.lock",
    "Cargo.toml",
    "nlb-common/Cargo.toml",
    "nlb-common/src",
    "nlb-ebpf/Cargo.toml",
    "nlb-ebpf/src",
];

/// Paths of the built ELF objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects {
    /// `nlb-xdp`: the load balancer.
    pub xdp: PathBuf,
    /// `nlb-xdp-decap`: a target's end of the tunnelled modes.
    pub decap: PathBuf,
    /// `nlb-xdp-pass`: passes everything; for the far end of a veth pair.
    pub pass: PathBuf,
    /// `nlb-xdp-ask`: asks the kernel's routes.
    pub ask: PathBuf,
    /// `nlb-xdp-capture`: stands in the load balancer's place and copies packets.
    pub capture: PathBuf,
}

/// Builds the kernel programs, leaves them under their names in `out_dir`, and tells cargo when to do
/// so again.
pub fn build(out_dir: &Path) -> Result<Objects> {
    let names = [
        "nlb-xdp",
        "nlb-xdp-decap",
        "nlb-xdp-pass",
        "nlb-xdp-ask",
        "nlb-xdp-capture",
    ];
    let [xdp, decap, pass, ask, capture] = build_binaries(out_dir, names)?;
    Ok(Objects {
        xdp,
        decap,
        pass,
        ask,
        capture,
    })
}

/// Builds the benchmark's kernel programs, and leaves them as `nlb-xdp-bench` in `out_dir`.
///
/// Apart from [`build`], so that the daemon neither waits for them nor embeds them; what both have
/// in common is compiled once, because they share the inner cargo's target folder.
pub fn build_bench(out_dir: &Path) -> Result<PathBuf> {
    let [bench] = build_binaries(out_dir, ["nlb-xdp-bench"])?;
    Ok(bench)
}

fn build_binaries<const N: usize>(out_dir: &Path, names: [&str; N]) -> Result<[PathBuf; N]> {
    let root = workspace_root();
    println!("cargo::rerun-if-env-changed={RUSTC_VARIABLE}");
    for input in INPUTS {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let compiler = find_compiler()?;
    let linker = find_linker()?;
    for tool in [&compiler.rustc, &linker] {
        println!("cargo::rerun-if-changed={}", tool.display());
    }

    let target_dir = target_dir(out_dir);
    compile(&root, &compiler, &target_dir, &names)?;
    let objects = target_dir.join(BPF_TARGET).join("release");
    let kept = names.map(|name| (objects.join(name), out_dir.join(name)));
    for (from, to) in &kept {
        fs::copy(from, to)
            .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    }
    Ok(kept.map(|(_, to)| to))
}

/// The inner cargo's target folder.
///
/// `cargo build`, `clippy`, `test` and their profiles each have an `OUT_DIR` of their own, all below
/// the outer target folder: sharing one there saves compiling aya-ebpf for each of them.
fn target_dir(out_dir: &Path) -> PathBuf {
    // <target>/<profile>/build/<package>-<hash>/out
    let build = out_dir
        .ancestors()
        .nth(2)
        .filter(|folder| folder.ends_with("build"));
    build
        .and_then(|build| build.ancestors().nth(2))
        .unwrap_or(out_dir)
        .join("bpf")
}

fn compile(root: &Path, compiler: &Compiler, target_dir: &Path, names: &[&str]) -> Result<()> {
    let mut cargo = outside_cargo(Path::new(&cargo_for(compiler)));
    cargo
        .current_dir(root)
        .args([
            "build",
            "--release",
            "--package",
            "nlb-ebpf",
            "--features",
            "kernel",
        ])
        .args(names.iter().flat_map(|name| ["--bin", name]))
        .args(["--target", BPF_TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .env("RUSTC", &compiler.rustc)
        // Both ways need what stable refuses: `-Zbuild-std`, and aya-ebpf's inline assembly.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            rust_flags(&packet_arch()).join("\x1f"),
        )
        .env("CARGO_TERM_COLOR", "never")
        .env(
            "PATH",
            env::join_paths(toolchain::search_path()).context("joining PATH")?,
        )
        .stdin(Stdio::null())
        // Standard output belongs to the directives for the outer cargo.
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if compiler.core == Core::Source {
        cargo.arg("-Zbuild-std=core");
    }

    let shown = format!("{cargo:?}");
    let mut child = cargo.spawn().with_context(|| format!("starting {shown}"))?;
    let stderr = child
        .stderr
        .take()
        .context("the compiler's output is not piped")?;
    let mut lines = Vec::new();
    for line in BufReader::new(stderr).lines() {
        let line = line.context("reading the compiler's output")?;
        eprintln!("{line}");
        lines.push(line);
    }
    let status = child.wait().context("waiting for the compiler")?;
    if !status.success() {
        // The outer cargo prints our standard error, and so the compiler's words, above this.
        bail!("nlb-ebpf does not compile for BPF ({status}) with {compiler}");
    }
    for warning in warnings(&lines) {
        println!("cargo::warning=nlb-ebpf for BPF: {warning}");
    }
    Ok(())
}

/// The architecture whose registers and packets the programs will see: the daemon's.
fn packet_arch() -> String {
    env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.into())
}

fn rust_flags(arch: &str) -> Vec<String> {
    vec![
        // aya-ebpf picks its bindings by it.
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        format!("-Ctarget-cpu={BPF_CPU}"),
        format!("-Ctarget-feature={BPF_FEATURES}"),
        // BTF is made from debug information.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
    ]
}

/// Each warning with its place, since cargo hides what a successful build script printed.
fn warnings(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.starts_with("warning") && !line.contains(" generated "))
        // Of [`BPF_FEATURES`], for every crate; rustc marks all of BPF's features so.
        .filter(|(_, line)| !line.contains("unstable feature specified"))
        .map(|(index, line)| {
            let place = lines.get(index + 1).map(|next| next.trim_start());
            match place.and_then(|place| place.strip_prefix("--> ")) {
                Some(place) => format!("{line} ({place})"),
                None => line.clone(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_ask_for_btf_and_the_hosts_bindings() {
        let flags = rust_flags("aarch64");
        assert!(flags.contains(&"--cfg=bpf_target_arch=\"aarch64\"".into()));
        assert!(flags.contains(&"-Clink-arg=--btf".into()));
        assert!(flags.contains(&"-Cdebuginfo=2".into()));
    }

    #[test]
    fn every_profile_shares_one_target_folder() {
        let shared = Path::new("/t/bpf");
        assert_eq!(
            target_dir(Path::new("/t/debug/build/nlb-userspace-1f/out")),
            shared
        );
        assert_eq!(
            target_dir(Path::new("/t/release/build/nlb-userspace-2e/out")),
            shared
        );
        assert_eq!(
            target_dir(Path::new("/elsewhere")),
            Path::new("/elsewhere/bpf")
        );
    }

    #[test]
    fn warnings_keep_their_place_and_summaries_are_left_out() {
        let text = "   Compiling nlb-ebpf v0.1.0\n\
                    warning: unused variable: `x`\n  --> nlb-ebpf/src/main.rs:7:9\n   |\n\
                    warning: `nlb-ebpf` (bin \"nlb-xdp\") generated 1 warning\n    Finished";
        let lines: Vec<String> = text.lines().map(Into::into).collect();
        assert_eq!(
            warnings(&lines),
            ["warning: unused variable: `x` (nlb-ebpf/src/main.rs:7:9)"]
        );
    }
}
