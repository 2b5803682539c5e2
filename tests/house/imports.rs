//! Which paths a Rust file names, resolved to the crate's root: by `use`, in code, in attributes and macros.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::tokens::{Kind, Token, tokens};

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Something in this crate; the segments below its root.
    Local(Vec<String>),
    /// Something else: a foreign crate, or a name in scope.
    Foreign(Vec<String>),
}

/// A path as it is named in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub target: Target,
    pub line: usize,
    /// Whether it is compiled for tests only.
    pub in_test: bool,
}

/// What a file says about imports.
#[derive(Debug, Default)]
pub struct Imports {
    pub references: Vec<Reference>,
    /// Modules, from the crate's root, that the file declares for tests only and keeps in other files.
    pub test_modules: Vec<Vec<String>>,
    /// Lines of items that are compiled for tests only.
    pub test_lines: Vec<RangeInclusive<usize>>,
    /// Lines with `unsafe` outside of attributes.
    pub unsafe_lines: Vec<usize>,
    /// Lines with a `#[path]` attribute, which would defeat the resolution of modules.
    pub path_attribute_lines: Vec<usize>,
}

/// Reads the source of module `module` (segments below the crate's root).
pub fn imports(source: &str, module: &[String], only_tests: bool) -> Imports {
    let tokens = tokens(source);
    let mut reader = Reader {
        tokens: &tokens,
        module: module.to_vec(),
        inline: Vec::new(),
        depth: 0,
        only_tests,
        test_until: 0,
        declared_modules: BTreeMap::new(),
        imported_names: BTreeSet::new(),
        found: Imports::default(),
    };
    reader.read();
    let (modules, imported) = (reader.declared_modules, reader.imported_names);
    let mut found = reader.found;
    for reference in &mut found.references {
        // `config::X` means a module of that name that is declared here, not the crate.
        if let Target::Foreign(path) = &reference.target
            && path.len() > 1
            && let Some(declared_in) = modules.get(&path[0])
        {
            reference.target = Target::Local([declared_in.as_slice(), path].concat());
        }
    }
    // Nor does it mean the crate where a local thing of that name is imported.
    found.references.retain(|reference| match &reference.target {
        Target::Foreign(path) => path.len() == 1 || !imported.contains(&path[0]),
        Target::Local(_) => true,
    });
    found
}

struct Reader<'a> {
    tokens: &'a [Token],
    module: Vec<String>,
    /// Depths of braces at which the inline modules at the end of `module` opened.
    inline: Vec<usize>,
    depth: usize,
    only_tests: bool,
    /// Tokens before this index belong to an item that is compiled for tests only.
    test_until: usize,
    /// Modules that the file declares, and in which module it does.
    declared_modules: BTreeMap<String, Vec<String>>,
    /// Names that local `use` declarations bring into scope.
    imported_names: BTreeSet<String>,
    found: Imports,
}

impl Reader<'_> {
    fn token(&self, at: usize) -> Option<&Token> {
        self.tokens.get(at)
    }

    fn is(&self, at: usize, mark: char) -> bool {
        self.token(at).is_some_and(|token| token.is(mark))
    }

    fn word(&self, at: usize) -> Option<&str> {
        self.token(at).and_then(Token::word)
    }

    fn separator(&self, at: usize) -> bool {
        self.token(at).is_some_and(|token| token.kind == Kind::PathSeparator)
    }

    fn in_test(&self, at: usize) -> bool {
        self.only_tests || at < self.test_until
    }

    fn read(&mut self) {
        let mut at = 0;
        while at < self.tokens.len() {
            at = self.step(at);
        }
    }

    /// Reads what starts at `at` and answers where to go on.
    fn step(&mut self, at: usize) -> usize {
        match &self.tokens[at].kind {
            Kind::Punctuation('#') => self.attribute(at),
            Kind::Punctuation('{') => {
                self.depth += 1;
                at + 1
            }
            Kind::Punctuation('}') => {
                self.depth = self.depth.saturating_sub(1);
                if self.inline.last() == Some(&self.depth) {
                    self.inline.pop();
                    self.module.pop();
                }
                at + 1
            }
            Kind::Word(word) => match word.as_str() {
                "use" if !self.is(at + 1, '<') => self.use_declaration(at),
                "mod" if self.word(at + 1).is_some() => self.module_declaration(at),
                "extern" if self.word(at + 1) == Some("crate") => {
                    if let Some(name) = self.word(at + 2).map(str::to_owned) {
                        self.record(&[name], at);
                    }
                    at + 3
                }
                "unsafe" => {
                    self.found.unsafe_lines.push(self.tokens[at].line);
                    at + 1
                }
                _ => self.path(at),
            },
            _ => at + 1,
        }
    }

    /// `#[cfg(test)]` marks the item that follows; paths inside of attributes are read as code.
    fn attribute(&mut self, at: usize) -> usize {
        let inner = self.is(at + 1, '!');
        let open = at + 1 + usize::from(inner);
        if !self.is(open, '[') {
            return at + 1;
        }
        let close = self.closing(open);
        if self.word(open + 1) == Some("path") && self.is(open + 2, '=') {
            self.found.path_attribute_lines.push(self.tokens[at].line);
        }
        let says = |word: &str| self.tokens[open..close].iter().any(|token| token.is_word(word));
        let test_only = self.word(open + 1) == Some("cfg") && says("test") && !says("not");
        let item_end = if inner {
            self.tokens.len()
        } else {
            self.item_end(close + 1)
        };
        if test_only {
            self.test_until = self.test_until.max(item_end);
            let last = self.tokens[item_end.min(self.tokens.len()) - 1].line;
            self.found.test_lines.push(self.tokens[at].line..=last);
        }
        // A lint is named like a path (`clippy::unwrap_used`); what else stands here is code.
        open + 1
    }

    /// The index after the item that starts at `at`: a declaration up to `;`, a body up to its brace, a field up to `,`.
    fn item_end(&self, at: usize) -> usize {
        let mut at = at;
        while self.is(at, '#') && self.is(at + 1, '[') {
            at = self.closing(at + 1) + 1;
        }
        let mut is_declaration = false;
        while let Some(token) = self.token(at) {
            match &token.kind {
                Kind::Word(word) if word == "use" || word == "extern" => is_declaration = true,
                Kind::Punctuation('(' | '[') => at = self.closing(at),
                Kind::Punctuation('{') if is_declaration => at = self.closing(at),
                Kind::Punctuation('{') => return self.closing(at) + 1,
                Kind::Punctuation(';' | ',' | '}') => return at + 1,
                _ => {}
            }
            at += 1;
        }
        at
    }

    /// The index of the bracket that closes the one at `open`.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            match token.kind {
                Kind::Punctuation('(' | '[' | '{') => depth += 1,
                Kind::Punctuation(')' | ']' | '}') => depth = depth.saturating_sub(1),
                _ => continue,
            }
            if depth == 0 {
                return at;
            }
        }
        self.tokens.len()
    }

    fn module_declaration(&mut self, at: usize) -> usize {
        let Some(name) = self.word(at + 1).map(str::to_owned) else {
            return at + 1;
        };
        self.declared_modules.insert(name.clone(), self.module.clone());
        if self.is(at + 2, '{') {
            self.inline.push(self.depth);
            self.module.push(name);
        } else if self.in_test(at) {
            let mut module = self.module.clone();
            module.push(name);
            self.found.test_modules.push(module);
        }
        at + 2
    }

    fn use_declaration(&mut self, at: usize) -> usize {
        let mut end = at + 1;
        while end < self.tokens.len() && !self.is(end, ';') {
            end += 1;
        }
        self.use_tree(at + 1, end, &[]);
        end + 1
    }

    /// Reads one branch of a use tree that starts at `at`; answers where it ends.
    fn use_tree(&mut self, at: usize, end: usize, prefix: &[String]) -> usize {
        let mut path = prefix.to_vec();
        let mut at = at;
        while at < end && !self.is(at, ',') && !self.is(at, '}') {
            if self.is(at, '{') {
                at += 1;
                while at < end && !self.is(at, '}') {
                    at = self.use_tree(at, end, &path);
                    at += usize::from(self.is(at, ','));
                }
                return at + 1;
            }
            if self.is(at, '*') {
                path.push("*".to_owned());
            } else if self.word(at) == Some("as") {
                let name = self.word(at + 1).unwrap_or_default().to_owned();
                self.record_use(&path, &name, at);
                return at + 2;
            } else if let Some(word) = self.word(at)
                && (word != "self" || path.is_empty())
            {
                path.push(word.to_owned());
            }
            at += 1;
        }
        let name = path.last().cloned().unwrap_or_default();
        self.record_use(&path, &name, at.min(end).saturating_sub(1));
        at
    }

    fn record_use(&mut self, path: &[String], name: &str, at: usize) {
        self.record(path, at);
        let is_local = matches!(path.first().map(String::as_str), Some("crate" | "self" | "super"));
        if is_local && name != "*" {
            self.imported_names.insert(name.to_owned());
        }
    }

    /// A path in code: words joined by `::`, generic arguments read on their own.
    fn path(&mut self, at: usize) -> usize {
        let continues = at > 0 && (self.is(at - 1, '.') || self.follows_segment(at));
        let mut path = vec![self.word(at).unwrap_or_default().to_owned()];
        let mut next = at + 1;
        while self.separator(next) {
            let Some(word) = self.word(next + 1) else { break };
            path.push(word.to_owned());
            next += 2;
        }
        if !continues && path.len() > 1 {
            self.record(&path, at);
        }
        next
    }

    /// Whether the word at `at` goes on a path (`a::b`, `<T>::b`) rather than start one (`::b`).
    fn follows_segment(&self, at: usize) -> bool {
        self.separator(at - 1) && at >= 2 && (self.word(at - 2).is_some() || self.is(at - 2, '>'))
    }

    fn record(&mut self, path: &[String], at: usize) {
        let Some(target) = self.resolve(path) else { return };
        self.found.references.push(Reference {
            target,
            line: self.tokens[at.min(self.tokens.len() - 1)].line,
            in_test: self.in_test(at),
        });
    }

    fn resolve(&self, path: &[String]) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => self.parent(&self.module)?,
            _ => return Some(Target::Foreign(path.to_vec())),
        };
        let mut rest = rest;
        while let Some(("super", others)) = rest.split_first().map(|(word, others)| (word.as_str(), others)) {
            base = self.parent(&base)?;
            rest = others;
        }
        base.extend_from_slice(rest);
        Some(Target::Local(base))
    }

    fn parent(&self, module: &[String]) -> Option<Vec<String>> {
        module.split_last().map(|(_, parent)| parent.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<String> {
        let module = ["task".to_owned(), "epoch".to_owned()];
        let references = imports(source, &module, false).references;
        let printed = references.iter().map(|reference| {
            let (kind, path) = match &reference.target {
                Target::Local(path) => ("crate", path),
                Target::Foreign(path) => ("", path),
            };
            format!(
                "{}{kind}::{}",
                if reference.in_test { "test " } else { "" },
                path.join("::")
            )
        });
        printed.collect()
    }

    #[test]
    fn use_trees_are_unfolded_and_resolved() {
        assert_eq!(
            found("pub use crate::{log::{self, Admin as A}, state::*}; use super::plan::X; use super::super::worker;"),
            [
                "crate::log",
                "crate::log::Admin",
                "crate::state::*",
                "crate::task::plan::X",
                "crate::worker"
            ]
        );
    }

    #[test]
    fn paths_in_code_attributes_and_macros_are_found() {
        assert_eq!(
            found(
                "#[derive(clap::Parser)] fn f(x: &dyn crate::log::Log) { ::rdkafka::a(); <crate::x::T as Y>::go(); v.w::<p::Q>(); }"
            ),
            [
                "::clap::Parser",
                "crate::log::Log",
                "::rdkafka::a",
                "crate::x::T",
                "::p::Q"
            ]
        );
        assert_eq!(
            found("macro_rules! m { () => { $crate::worker::run() } }"),
            ["crate::worker::run"]
        );
        assert_eq!(found("extern crate rocksdb;"), ["::rocksdb"]);
        assert!(found("fn f() -> impl Sized + use<'_> { x } pub(crate) fn g() {}").is_empty());
    }

    #[test]
    fn inline_modules_count_as_a_level_and_end_with_their_brace() {
        assert_eq!(
            found("mod inner { fn f() { if x {} } use super::a; } use super::b;"),
            ["crate::task::epoch::a", "crate::task::b"]
        );
    }

    #[test]
    fn what_is_compiled_for_tests_only_is_marked() {
        assert_eq!(
            found(
                "#[cfg(test)] mod tests { use crate::a; } use crate::b; #[cfg(test)] #[allow(x)] use crate::{c}; use crate::d; #[cfg(not(test))] use crate::e;"
            ),
            ["test crate::a", "crate::b", "test crate::c", "crate::d", "crate::e"]
        );
        let module = ["task".to_owned()];
        let elsewhere = imports("#[cfg(test)]\nmod tests;\nmod epoch;", &module, false).test_modules;
        assert_eq!(elsewhere, [["task".to_owned(), "tests".to_owned()]]);
    }

    #[test]
    fn a_local_module_hides_a_foreign_crate_of_the_same_name() {
        assert_eq!(
            found("mod config; fn f() { config::load() }"),
            ["crate::task::epoch::config::load"]
        );
        assert_eq!(
            found("use crate::service::toml; fn f() { toml::read() }"),
            ["crate::service::toml"]
        );
        assert_eq!(found("fn f() { toml::read() }"), ["::toml::read"]);
    }
}
