//! What an error of `object_store` means to a caller.

use std::error::Error as StdError;
use std::io;

use object_store::Error;
use object_store::client::HttpError;

/// A reason is for one line of a log.
const MAX_REASON: usize = 400;

/// Why an attempt did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no such object.
    Missing,
    /// There is one of that name, or somebody is just writing it.
    Exists,
    /// Credentials or rights.
    Denied(String),
    /// There is no such bucket.
    NoStore(String),
    /// Another attempt may succeed.
    Passing(String),
    /// Another attempt would end the same.
    Failed(String),
}

/// Classifies an error. `object_store` keeps its own errors of requests private, so the status is read from its text.
pub(super) fn refusal(error: &Error) -> Refusal {
    let text = error.to_string();
    match error {
        Error::NotFound { .. } if text.contains("NoSuchBucket") => Refusal::NoStore(reason(error)),
        Error::NotFound { .. } => Refusal::Missing,
        Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => Refusal::Exists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Refusal::Denied(reason(error)),
        _ if cause::<HttpError>(error).is_some() => Refusal::Passing(reason(error)),
        _ => match cause::<io::Error>(error).map(io::Error::kind) {
            Some(kind) => of_disk(kind, reason(error)),
            None => of_answer(&text, reason(error)),
        },
    }
}

fn of_disk(kind: io::ErrorKind, reason: String) -> Refusal {
    match kind {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Refusal::Denied(reason),
        io::ErrorKind::TimedOut | io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Refusal::Passing(reason),
        _ => Refusal::Failed(reason),
    }
}

fn of_answer(text: &str, reason: String) -> Refusal {
    // S3 also reports these with status 200, in the body.
    let is_overloaded = ["InternalError", "SlowDown", "ServiceUnavailable"];
    match status(text) {
        // Of requests that concern no single object the crate tells nothing but the text.
        Some(401 | 403) => Refusal::Denied(reason),
        Some(404) => Refusal::NoStore(reason),
        // Not implemented: another attempt does not change that.
        Some(501) => Refusal::Failed(reason),
        Some(408 | 429 | 500..) => Refusal::Passing(reason),
        _ if is_overloaded.iter().any(|code| text.contains(code)) => Refusal::Passing(reason),
        _ if text.contains("AccessDenied") => Refusal::Denied(reason),
        _ => Refusal::Failed(reason),
    }
}

/// The HTTP status that the text of an error names.
fn status(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// The first error of the chain that is a `T`.
fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The error in one line: status, code and message where the store answered with them, else the text with its innermost cause.
pub(super) fn reason(error: &(dyn StdError + 'static)) -> String {
    let text = error.to_string();
    if let (Some(code), Some(message)) = (element(&text, "Code"), element(&text, "Message")) {
        let status = status(&text).map(|status| format!("{status} "));
        return one_line(&format!("{}{code}: {message}", status.unwrap_or_default()));
    }
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let innermost = innermost.to_string();
    if text.contains(&innermost) {
        one_line(&text)
    } else {
        one_line(&format!("{text}: {innermost}"))
    }
}

/// The text of an XML element.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("<{name}>"))?;
    after.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: text.into(),
        }
    }

    #[test]
    fn what_may_pass_is_told_from_what_does_not() {
        let of = |text: &str| refusal(&answer(text));
        for status in [
            "500 Internal",
            "502 Bad Gateway",
            "503 Busy",
            "429 Too Many",
            "408 Slow",
        ] {
            let text = format!("Server returned non-2xx status code: {status}: ");
            assert!(matches!(of(&text), Refusal::Passing(_)), "{status}");
        }
        for status in ["400 Bad Request", "501 Not Implemented", "416 Range"] {
            let text = format!("Server returned non-2xx status code: {status}: ");
            assert!(matches!(of(&text), Refusal::Failed(_)), "{status}");
        }
        assert!(matches!(
            of("error response: <Code>SlowDown</Code>"),
            Refusal::Passing(_)
        ));
        assert!(matches!(of("the code AccessDenied"), Refusal::Denied(_)));
    }

    #[test]
    fn a_missing_bucket_is_told_from_a_missing_object() {
        let missing = |text: &str| Error::NotFound {
            path: "a".to_owned(),
            source: text.into(),
        };
        assert_eq!(refusal(&missing("<Code>NoSuchKey</Code>")), Refusal::Missing);
        assert!(matches!(
            refusal(&missing("<Code>NoSuchBucket</Code>")),
            Refusal::NoStore(_)
        ));
    }

    #[test]
    fn disks_say_who_is_to_blame() {
        let disk = |kind: io::ErrorKind| Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(io::Error::from(kind)),
        };
        assert!(matches!(
            refusal(&disk(io::ErrorKind::PermissionDenied)),
            Refusal::Denied(_)
        ));
        assert!(matches!(refusal(&disk(io::ErrorKind::StorageFull)), Refusal::Failed(_)));
    }

    #[test]
    fn a_reason_is_one_short_line_without_what_the_store_adds() {
        let body = "status code: 403 Forbidden: <Error>\n<Code>SignatureDoesNotMatch</Code>\n<Message>Check it.</Message>\n\
                    <StringToSign>…</StringToSign></Error>";
        assert_eq!(reason(&answer(body)), "403 SignatureDoesNotMatch: Check it.");
        assert!(reason(&answer(&"long ".repeat(1_000))).chars().count() <= MAX_REASON + 1);
    }
}
