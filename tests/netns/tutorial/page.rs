//! What a page of the tutorial has its reader do: blocks of commands, and what they shall print.

/// One block of commands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Where the block begins, for whoever mends the page.
    pub(super) line: usize,
    pub(super) commands: String,
    /// What stands directly below, in a block of its own: what is printed.
    pub(super) shown: Option<String>,
}

/// The blocks marked `sh`, in their order, each with the block marked `text` that follows it, if
/// there is nothing between both.
pub(super) fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut shows_output_of_the_last = false;
    let mut lines = page.lines().zip(1..);
    while let Some((text, line)) = lines.next() {
        let Some(language) = text.strip_prefix("```") else {
            shows_output_of_the_last &= text.is_empty();
            continue;
        };
        let block: Vec<&str> = lines
            .by_ref()
            .map(|(text, _)| text)
            .take_while(|text| *text != "```")
            .collect();
        let block = block.join("\n") + "\n";
        match (language, steps.last_mut()) {
            ("sh", _) => steps.push(Step {
                line,
                commands: block,
                shown: None,
            }),
            ("text", Some(step)) if shows_output_of_the_last => step.shown = Some(block),
            _ => {}
        }
        shows_output_of_the_last = language == "sh";
    }
    steps
}

#[test]
fn a_block_of_text_is_the_output_of_the_commands_directly_above_it() {
    let page = "# Page\n\n```sh\none\ntwo\n```\n\n```text\n1\n```\n\n```text\na picture\n```\n\
                ```sh\nthree\n```\n\nOtherwise:\n\n```text\nno output\n```\n\n```toml\na = 1\n```\n";
    let step = |line, commands: &str, shown: Option<&str>| Step {
        line,
        commands: commands.to_owned(),
        shown: shown.map(str::to_owned),
    };
    assert_eq!(
        steps(page),
        [
            step(3, "one\ntwo\n", Some("1\n")),
            step(15, "three\n", None)
        ]
    );
}
