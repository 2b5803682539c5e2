//! What is committed speaks of no particular machine: no paths of one, no hosts but public ones.

use crate::sources::{SourceFile, text_files};

/// Beginnings of paths that exist on somebody's machine. In two halves, so that this file does not find itself.
const MACHINE_PATHS: [(&str, &str); 6] = [
    ("/ro", "ot/"),
    ("/ho", "me/"),
    ("/wo", "rk/"),
    ("/Us", "ers/"),
    ("/tm", "p/w/"),
    ("/mn", "t/"),
];

/// Hosts that anybody can reach, and names that belong to nobody.
const PUBLIC_HOSTS: [&str; 23] = [
    "127.0.0.1",
    "localhost",
    "0.0.0.0",
    "www.apache.org",
    "kafka.apache.org",
    "cwiki.apache.org",
    "issues.apache.org",
    "maven.apache.org",
    "www.w3.org",
    "creativecommons.org",
    "github.com",
    "doc.rust-lang.org",
    "www.rust-lang.org",
    "docs.rs",
    "sh.rustup.rs",
    "rustup.rs",
    "rocksdb.org",
    "prometheus.io",
    "opentelemetry.io",
    "mermaid.js.org",
    "semver.org",
    "nightlies.apache.org",
    "example.com",
];

/// Names of the compose file's own network, those that stand for any bucket or name in URLs of object stores, and placeholders in
/// texts that are filled in at run time.
const LOCAL_NAMES: [&str; 8] = [
    "prometheus",
    "grafana",
    "kafka",
    "tidegate-1",
    "tidegate-2",
    "bucket",
    "name",
    "{",
];

fn complaints(file: &SourceFile) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let place = format!("{}:{}", file.path, index + 1);
        for (first, second) in MACHINE_PATHS {
            if names_path(line, &format!("{first}{second}")) {
                complaints.push(format!("{place}: a path of one machine ({first}{second})"));
            }
        }
        for host in hosts(line) {
            let is_local = LOCAL_NAMES.contains(&host) || host.starts_with(['{', '$', '%', '<']);
            if !PUBLIC_HOSTS.contains(&host) && !is_local && !host.is_empty() {
                complaints.push(format!("{place}: host {host:?} is not one that anybody can reach"));
            }
        }
    }
    complaints
}

/// Whether the line names an absolute path that starts like this; `$x/path/` and `a/path/` are relative to something.
fn names_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|character| character.is_alphanumeric() || "._-}$)".contains(character))
    })
}

/// The hosts of all URLs in a line, without user, port and path.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    let after_scheme = line.split("://").skip(1);
    after_scheme.map(|rest| {
        let end = rest.find(|character: char| !(character.is_alphanumeric() || "-._@{}$%<".contains(character)));
        let authority = &rest[..end.unwrap_or(rest.len())];
        let host = authority.rsplit('@').next().unwrap_or(authority);
        host.trim_end_matches('.')
    })
}

#[test]
fn nothing_committed_names_a_machine_or_a_private_host() {
    let files = text_files(".");
    assert!(files.len() > 20, "the repository's files are found");
    let complaints: Vec<String> = files.iter().flat_map(complaints).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Negative controls.
mod controls {
    use super::*;

    fn refused(text: String) -> usize {
        let file = SourceFile {
            path: "x".to_owned(),
            text,
        };
        complaints(&file).len()
    }

    #[test]
    fn paths_of_a_machine_are_refused_and_relative_ones_accepted() {
        for (first, second) in MACHINE_PATHS {
            assert_eq!(refused(format!("see {first}{second}x")), 1, "{first}{second}");
            assert_eq!(refused(format!("cd $folder{first}{second}x")), 0, "{first}{second}");
        }
        assert_eq!(refused("/var/lib/tidegate, /opt/kafka".to_owned()), 0);
    }

    #[test]
    fn private_hosts_are_refused_and_public_ones_accepted() {
        let scheme = |rest: &str| format!("http:{}{rest}", "//");
        assert_eq!(refused(scheme("mirror.internal:8080/debian")), 1);
        assert_eq!(refused(scheme("user:word@10.1.2.3/simple")), 1);
        assert_eq!(refused(scheme("github.com/tidegate/tidegate")), 0);
        assert_eq!(refused(scheme("127.0.0.1:9090/metrics")), 0);
        assert_eq!(refused(scheme("{address}/metrics")), 0);
    }
}
