//! The table of options rendered: for a terminal, for the documentation, and as the default file.

use super::kind::Kind;
use super::options::{OPTIONS, OptionSpec};

/// How the reference is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceFormat {
    /// For a terminal.
    Text,
    /// For `docs/configuration.md`.
    Markdown,
    /// A configuration file with every option, those without a default commented out: `config/default.toml`.
    Toml,
}

/// All options with type, unit, default and description.
pub fn reference(format: ReferenceFormat) -> String {
    match format {
        ReferenceFormat::Text => text(),
        ReferenceFormat::Markdown => markdown(),
        ReferenceFormat::Toml => toml(),
    }
}

fn text() -> String {
    let mut out = String::new();
    for option in OPTIONS {
        let default = option.default.unwrap_or("unset");
        out += &format!("{} ({}; default {default})\n", option.name, option.kind.expected());
        out += &wrapped(option.doc, "    ", 100);
        if !option.kind.is_table() {
            out += &format!("    Environment: {}\n", option.environment_variable());
        }
        out.push('\n');
    }
    out
}

const MARKDOWN_HEAD: &str = "\
# Configuration

Tidegate reads TOML. Its own defaults come first, over them the files given by `--config` (later ones over earlier ones),
over them the environment, over all `--set key=value` on the command line. `tidegate config show` prints what takes effect
and where each value comes from; `tidegate config check` only says whether it is right.

An option in the environment is `TIDEGATE__`, its sections and its name in capitals, joined by two underscores:
`TIDEGATE__COMMIT__INTERVAL=50ms`. Keys of `kafka.common`, `kafka.consumer` and `kafka.producer` are written with an underscore
for each dot: `TIDEGATE__KAFKA__PRODUCER__COMPRESSION_TYPE=lz4`. Keys of `parameters` and `errors.nodes` are in lower case there; a
parameter's value is read as TOML where it is TOML (`5`, `true`), else as text.

Durations are numbers with a unit, `100ms`, `30s`, `5m`, `24h`, `7d`, or several in a row, `1h30m`. Sizes have a binary unit, `512B`,
`64KiB`, `64MiB`, `2GiB`. A name or value that Tidegate does not know is an error, never ignored. Secrets are never printed.

This page is made by `tidegate config reference --format markdown`.
";

fn markdown() -> String {
    let mut out = MARKDOWN_HEAD.to_owned();
    let mut section = None;
    for option in OPTIONS {
        if section != Some(option.section()) {
            let title = if option.section().is_empty() {
                "Top level".to_owned()
            } else {
                format!("`[{}]`", option.section())
            };
            out +=
                &format!("\n## {title}\n\n| option | type | unit | default | description |\n|---|---|---|---|---|\n");
            section = Some(option.section());
        }
        let default = option
            .default
            .map_or("unset".to_owned(), |default| format!("`{default}`"));
        let kind = option.kind.type_name();
        let expected = option.kind.expected().replace('|', "\\|");
        out += &format!(
            "| `{}` | {kind} | {} | {default} | {} Takes {expected}. |\n",
            option.name,
            option.kind.unit(),
            option.doc
        );
    }
    out
}

const TOML_HEAD: &str = "\
# The defaults of Tidegate: every option with its default; what has none is commented out.
# This file is made by `tidegate config reference --format toml` and is part of the program.
";

fn toml() -> String {
    let mut out = TOML_HEAD.to_owned();
    let mut section = "";
    // Options at the top level must stand before the first section.
    let (top, inner): (Vec<&OptionSpec>, Vec<&OptionSpec>) = OPTIONS
        .iter()
        .filter(|option| !option.kind.is_table())
        .partition(|option| option.section().is_empty());
    for option in top.into_iter().chain(inner) {
        if option.section() != section {
            section = option.section();
            out += &format!("\n[{section}]\n");
        }
        out += &toml_entry(option);
    }
    for option in OPTIONS.iter().filter(|option| option.kind.is_table()) {
        out += &format!("\n{}# [{}]\n", wrapped(option.doc, "# ", 118), option.name);
    }
    out
}

fn toml_entry(option: &OptionSpec) -> String {
    let doc = wrapped(&format!("{} Takes {}.", option.doc, option.kind.expected()), "# ", 118);
    match (option.default, option.kind) {
        (Some(default), _) => format!("\n{doc}{} = {default}\n", option.short_name()),
        (None, Kind::Integer { min, .. }) => format!("\n{doc}# {} = {min}\n", option.short_name()),
        (None, _) => format!("\n{doc}# {} = \"\"\n", option.short_name()),
    }
}

/// Breaks text between words so that no line, prefix included, is longer than `width` characters.
fn wrapped(text: &str, prefix: &str, width: usize) -> String {
    let mut out = String::new();
    let mut line = prefix.to_owned();
    for word in text.split_whitespace() {
        let is_empty = line.len() == prefix.len();
        if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
            out += line.trim_end();
            out.push('\n');
            line = prefix.to_owned();
        } else if !is_empty {
            line.push(' ');
        }
        line += word;
    }
    out + line.trim_end() + "\n"
}
