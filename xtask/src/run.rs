//! Running other programs: every one that changes something is printed before it starts.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

/// How this process can act as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// It is root.
    Root,
    /// Through sudo, which has no need to ask or can ask on the terminal.
    Sudo,
    /// Not at all.
    None,
}

impl Privilege {
    /// Finds out without asking anybody anything.
    pub(crate) fn look() -> Self {
        // The owner of our own entry is our effective user; std has no other word for it.
        if fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0) {
            return Self::Root;
        }
        let mut sudo = Command::new("sudo");
        let silent = sudo.args(["-n", "true"]).stdin(Stdio::null()).output();
        match silent {
            Ok(output) if output.status.success() => Self::Sudo,
            Ok(_) if io::stdin().is_terminal() => Self::Sudo,
            _ => Self::None,
        }
    }

    /// A command run as root.
    pub(crate) fn command(self, program: &str) -> Result<Command> {
        match self {
            Self::Root => Ok(Command::new(program)),
            Self::Sudo => {
                let mut sudo = Command::new("sudo");
                sudo.arg(program);
                Ok(sudo)
            }
            Self::None => {
                bail!("`{program}` needs root, and sudo cannot be used here: run this as root")
            }
        }
    }

    /// Options that make cargo start what it built as root, while the build stays the user's, so
    /// that no file in the target folder belongs to root.
    pub(crate) fn cargo_runner(self) -> &'static [&'static str] {
        match self {
            Self::Sudo => &["--config", "target.'cfg(unix)'.runner = ['sudo', '-E']"],
            Self::Root | Self::None => &[],
        }
    }
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words: Vec<OsString> = Vec::new();
    for (name, value) in command.get_envs() {
        // Variables that are taken away are of no interest to who types.
        if let Some(value) = value {
            words.push([name, "=".as_ref(), value].into_iter().collect());
        }
    }
    words.push(program.file_name().map_or_else(OsString::new, Into::into));
    words.extend(command.get_args().map(Into::into));
    let words: Vec<String> = words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .map(|word| {
            if word.contains([' ', '\'']) {
                format!("\"{word}\"")
            } else {
                word
            }
        })
        .collect();
    words.join(" ")
}

/// Prints a command and runs it with our terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    println!("  $ {line}");
    let status = command
        .status()
        .with_context(|| format!("starting `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Prints a command, runs it, and hands over each line of its output as it comes; `false` when the
/// command failed.
pub(crate) fn listen(command: &mut Command, hear: impl Fn(&str) + Sync) -> Result<bool> {
    let line = shown(command);
    println!("  $ {line}");
    // A pipe would turn cargo's colours off.
    if io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{line}`"))?;
    thread::scope(|scope| {
        if let Some(errors) = child.stderr.take() {
            scope.spawn(|| each_line(BufReader::new(errors), &hear));
        }
        if let Some(output) = child.stdout.take() {
            each_line(BufReader::new(output), &hear);
        }
    });
    Ok(child
        .wait()
        .with_context(|| format!("waiting for `{line}`"))?
        .success())
}

/// Lines of a stream that need not be UTF-8: tests may print packets.
fn each_line(mut stream: impl BufRead, hear: impl Fn(&str)) {
    let mut line = Vec::new();
    while stream
        .read_until(b'\n', &mut line)
        .is_ok_and(|length| length > 0)
    {
        hear(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
}

/// What a command prints, or nothing when it cannot be run or fails. For looking, not for acting.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program stands on `PATH`.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_typed_again() {
        let mut command = Command::new("/opt/bin/cargo");
        command
            .args(["test", "--config", "a = 1"])
            .env("LLVM_PREFIX", "/llvm")
            .env_remove("RUSTC");
        assert_eq!(
            shown(&command),
            "LLVM_PREFIX=/llvm cargo test --config \"a = 1\""
        );
    }

    #[test]
    fn sudo_runs_the_tests_and_not_the_build() {
        assert!(
            Privilege::Sudo
                .cargo_runner()
                .iter()
                .any(|option| option.contains("sudo"))
        );
        assert!(Privilege::Root.cargo_runner().is_empty());
    }
}
