//! That `docs/cli.md` says what `nlb --help` says, word for word.

use std::fs;

use clap::CommandFactory as _;
use nlb_userspace::cli::Cli;

use crate::document;

/// As wide as a README reads well; a terminal's own width must not change the file.
const COLUMNS: usize = 90;

/// Every command by name, `nlb` itself first, with its long help; what has commands below it with
/// their usage.
fn helps() -> Vec<(String, String)> {
    let mut nlb = Cli::command().term_width(COLUMNS).max_term_width(COLUMNS);
    nlb.build();
    let mut helps = vec![("nlb".to_owned(), nlb.render_long_help().to_string())];
    for command in nlb.get_subcommands_mut() {
        let name = command.get_name().to_owned();
        if name == "help" {
            continue;
        }
        let mut help = command.render_long_help().to_string();
        for below in command.get_subcommands_mut() {
            if below.get_name() != "help" {
                help.push('\n');
                help += &below.render_usage().to_string();
            }
            // One for all: they have the same options.
            if (name.as_str(), below.get_name()) == ("target", "add") {
                helps.push((
                    "target add".to_owned(),
                    below.render_long_help().to_string(),
                ));
            }
        }
        helps.push((name, help));
    }
    helps
}

fn block(help: &str) -> String {
    let lines: Vec<&str> = help.trim().lines().map(str::trim_end).collect();
    format!("```text\n{}\n```\n", lines.join("\n"))
}

#[test]
fn the_reference_says_what_every_command_says_of_itself() {
    let written = fs::read_to_string(document::path("cli.md")).unwrap();
    let mut text = written.clone();
    for (name, help) in helps() {
        text = document::with_block(&text, &format!("<!-- help: {name} -->\n"), &block(&help));
    }
    let blocks = written.matches("<!-- help: ").count();
    assert_eq!(
        blocks,
        helps().len(),
        "a block names a command that is gone"
    );
    document::must_be("cli.md", &text);
}
