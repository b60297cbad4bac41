//! What is made from the description of the commands: completion scripts and manual pages.

use std::{fs, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Failure, count};

/// The completion script of a shell.
pub(super) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "nlb", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes `nlb.1`, `nlb-run.1`, `nlb-target-add.1` and so on.
pub(super) fn manual(directory: &Path) -> Result<String, Failure> {
    fs::create_dir_all(directory)
        .map_err(|error| format!("cannot make `{}`: {error}", directory.display()))?;
    clap_mangen::generate_to(Cli::command(), directory)
        .map_err(|error| format!("cannot write to `{}`: {error}", directory.display()))?;
    let pages = fs::read_dir(directory)?.count();
    Ok(format!(
        "{} in {}\n",
        count(pages, "page"),
        directory.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        manual(folder.path()).unwrap();
        for page in ["nlb.1", "nlb-run.1", "nlb-target-add.1", "nlb-apply.1"] {
            let text = fs::read_to_string(folder.path().join(page)).unwrap();
            assert!(text.contains(".TH"), "{page}");
        }
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(shell);
            assert!(
                script.contains("drain") && script.contains("dry-run"),
                "{shell}"
            );
        }
    }
}
