//! The repository's files, as the other tests read them.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold what is built or downloaded, never what is committed.
const NOT_COMMITTED: [&str; 3] = [".git", "target", "out"];

/// The folder of the workspace.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A text file and its path from the workspace's folder, with `/` on every system.
pub struct SourceFile {
    pub path: String,
    pub text: String,
}

/// All UTF-8 files below `folder`, sorted by path; other files are left out.
pub fn text_files(folder: &str) -> Vec<SourceFile> {
    let mut paths = Vec::new();
    collect(&root().join(folder), &mut paths);
    paths.sort();
    let files = paths.into_iter().filter_map(|path| {
        let text = fs::read_to_string(&path).ok()?;
        Some(SourceFile {
            path: relative(&path),
            text,
        })
    });
    files.collect()
}

/// All Rust files below `folder`, sorted by path. At least one, since a test over nothing shows nothing.
pub fn rust_files(folder: &str) -> Vec<SourceFile> {
    let mut files = text_files(folder);
    files.retain(|file| file.path.ends_with(".rs"));
    assert!(!files.is_empty(), "no Rust files in {folder}/");
    files
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if !NOT_COMMITTED.iter().any(|skipped| name == *skipped) {
                collect(&entry.path(), paths);
            }
        } else if kind.is_file() && name != ".git" {
            paths.push(entry.path());
        }
    }
}

fn relative(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap_or(path);
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}
