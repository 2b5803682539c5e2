//! Every error code has one owner in the source and one page in `docs/errors/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::imports::imports;
use crate::sources::{root, rust_files, text_files};
use crate::tokens::{Kind, Token, tokens};

/// Where errors are defined.
const FOLDERS: [&str; 2] = ["src", "topologies/src"];

/// A code in the source.
#[derive(Debug, PartialEq, Eq)]
struct Use {
    code: String,
    place: String,
    /// Number of variants that answer this code here; 0 where it is only compared or printed.
    variants: usize,
}

fn is_code(text: &str) -> bool {
    text.len() == 6 && text.starts_with("TG") && text[2..].bytes().all(|byte| byte.is_ascii_digit())
}

/// The codes in a file, those in tests left out: a test names a code without owning it.
fn uses(file: &str, source: &str) -> Vec<Use> {
    let tokens = tokens(source);
    let test_lines = imports(source, &[], false).test_lines;
    let mut uses = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Kind::Text(text) = &token.kind else { continue };
        let in_test = test_lines.iter().any(|lines| lines.contains(&token.line));
        if is_code(text) && !in_test {
            uses.push(Use {
                code: text.clone(),
                place: format!("{file}:{}", token.line),
                variants: variants(&tokens, at),
            });
        }
    }
    uses
}

/// How many variants answer the code at `at`: those of a match arm, or one for a function body or a constant.
fn variants(tokens: &[Token], at: usize) -> usize {
    let Some(before) = at.checked_sub(1).map(|before| &tokens[before]) else {
        return 0;
    };
    match before.kind {
        Kind::FatArrow => alternatives(&tokens[..at - 1]),
        Kind::Punctuation('{') => 1,
        Kind::Punctuation('=') => usize::from(at < 2 || !matches!(tokens[at - 2].kind, Kind::Punctuation('=' | '!'))),
        _ => 0,
    }
}

/// How many patterns stand in the match arm whose arrow comes after `tokens`.
fn alternatives(tokens: &[Token]) -> usize {
    let mut depth = 0usize;
    let mut alternatives = 1;
    for token in tokens.iter().rev() {
        match token.kind {
            Kind::Punctuation(')' | ']' | '}') => depth += 1,
            Kind::Punctuation('(' | '[' | '{') if depth == 0 => break,
            Kind::Punctuation('(' | '[' | '{') => depth -= 1,
            Kind::Punctuation('|') if depth == 0 => alternatives += 1,
            Kind::Punctuation(',') | Kind::FatArrow if depth == 0 => break,
            _ => {}
        }
    }
    alternatives
}

fn all_uses() -> Vec<Use> {
    let files = FOLDERS.iter().flat_map(|folder| rust_files(folder));
    files.flat_map(|file| uses(&file.path, &file.text)).collect()
}

/// Sentences about codes that several variants answer, or none.
fn ownership_complaints(uses: &[Use]) -> Vec<String> {
    let mut by_code: BTreeMap<&str, Vec<&Use>> = BTreeMap::new();
    for found in uses {
        by_code.entry(&found.code).or_default().push(found);
    }
    let complaints = by_code.into_iter().filter_map(|(code, uses)| {
        let owners: usize = uses.iter().map(|found| found.variants).sum();
        let places: Vec<&str> = uses.iter().map(|found| found.place.as_str()).collect();
        (owners != 1).then(|| format!("{code} is answered by {owners} variants: {}", places.join(", ")))
    });
    complaints.collect()
}

#[test]
fn every_code_belongs_to_exactly_one_variant() {
    let complaints = ownership_complaints(&all_uses());
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let codes: BTreeSet<String> = all_uses().into_iter().map(|found| found.code).collect();
    let mut pages = BTreeSet::new();
    for page in text_files("docs/errors") {
        let name = page.path.strip_prefix("docs/errors/").unwrap_or(&page.path);
        if name == "README.md" {
            continue;
        }
        let code = name.strip_suffix(".md").filter(|code| is_code(code));
        let code = code.unwrap_or_else(|| panic!("{} is not named after a code", page.path));
        assert!(
            page.text.starts_with(&format!("# {code}")),
            "{} starts with its code as title",
            page.path
        );
        pages.insert(code.to_owned());
    }
    let missing: Vec<_> = codes.difference(&pages).collect();
    let orphaned: Vec<_> = pages.difference(&codes).collect();
    assert!(
        missing.is_empty() && orphaned.is_empty(),
        "codes without a page in docs/errors: {missing:?}; pages without a code in the source: {orphaned:?}"
    );
}

#[test]
fn every_page_says_what_happened_why_and_what_to_do() {
    let folder = root().join("docs/errors");
    assert!(
        fs::metadata(&folder).is_ok_and(|folder| folder.is_dir()),
        "docs/errors is there"
    );
    for page in text_files("docs/errors") {
        if page.path.ends_with("README.md") {
            continue;
        }
        for section in ["What happened", "Why", "What to do"] {
            assert!(page.text.contains(section), "{} has a part {section:?}", page.path);
        }
    }
}

/// Negative controls: shared, unowned and doubled codes are noticed.
mod controls {
    use super::*;

    fn complaints(source: &str) -> Vec<String> {
        ownership_complaints(&uses("x.rs", source))
    }

    #[test]
    fn a_code_of_one_variant_is_accepted_wherever_else_it_is_compared() {
        let source = r#"
            fn code(&self) -> &'static str { match self { E::A { .. } => "TG9001", E::B(_) | E::C => inner() } }
            fn code(&self) -> &'static str { "TG9002" }
            const FULL: &str = "TG9003";
            fn f(e: E) -> bool { e.code() == "TG9001" || g("TG9002") }
            #[cfg(test)] mod tests { fn code() -> &'static str { "TG9001" } }
        "#;
        assert_eq!(complaints(source), Vec::<String>::new());
    }

    #[test]
    fn a_code_of_two_variants_is_refused() {
        assert_eq!(complaints(r#"match e { E::A { x, .. } | E::B => "TG9001" }"#).len(), 1);
        assert_eq!(complaints(r#"match e { E::A => "TG9001", E::B => "TG9001" }"#).len(), 1);
        assert_eq!(
            complaints(r#"match e { A(x) => { f(|y| y) } B => "TG9001", }"#).len(),
            0
        );
    }

    #[test]
    fn a_code_that_no_variant_answers_is_refused() {
        assert_eq!(complaints(r#"fn f(e: E) -> bool { e.code() == "TG9001" }"#).len(), 1);
    }
}
