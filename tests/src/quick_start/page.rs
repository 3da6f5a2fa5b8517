//! What the page says: the code under its headings.

/// One block of code of the page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A heading of the second level.
    Heading(&'a str),
    /// A command line, without `sudo` and comment.
    Command {
        /// Whether the page puts `sudo` before it.
        root: bool,
        /// The words.
        line: &'a str,
    },
    /// A part of a configuration file.
    Configuration(String),
}

/// Headings, commands and configuration, in their order.
pub(super) fn steps(page: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut block = None;
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            block = (block.is_none()).then_some(language);
            if block == Some("toml") {
                steps.push(Step::Configuration(String::new()));
            }
        } else if block == Some("toml") {
            if let Some(Step::Configuration(text)) = steps.last_mut() {
                text.push_str(line);
                text.push('\n');
            }
        } else if block == Some("console") {
            if let Some(line) = line.strip_prefix("$ ") {
                let line = line.split(" #").next().unwrap_or(line).trim();
                let plain = line.strip_prefix("sudo ");
                steps.push(Step::Command {
                    root: plain.is_some(),
                    line: plain.unwrap_or(line),
                });
            }
        } else if let Some(heading) = line.strip_prefix("## ") {
            steps.push(Step::Heading(heading));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_apart() {
        let page = "# T\n## 1. One\ntext `x`\n```console\n$ sudo a --b  # why\n$ c\noutput\n```\n\
                    ```toml\nk = 1\n```\n";
        let command = |root, line| Step::Command { root, line };
        let expected = [
            Step::Heading("1. One"),
            command(true, "a --b"),
            command(false, "c"),
            Step::Configuration("k = 1\n".to_owned()),
        ];
        assert_eq!(steps(page), expected);
    }
}
