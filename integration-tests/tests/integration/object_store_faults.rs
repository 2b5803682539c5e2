//! What calls on an object store say when it refuses, is not there, or does not answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use tidegate::blob::metrics::BlobMetrics;
use tidegate::blob::object::{ObjectBlobs, S3Options};
use tidegate::blob::{BlobError, BlobLimits, BlobResult, BlobStore, Part};
use tidegate_integration_tests::S3Server;
use tidegate_integration_tests::s3_server::{impatient, patient};

fn open(url: &str, options: &S3Options, limits: BlobLimits) -> BlobResult<Arc<ObjectBlobs>> {
    ObjectBlobs::open(url, options, limits, Arc::new(BlobMetrics::default()))
}

/// The errors of all calls, all of which have to fail.
fn errors(blobs: &dyn BlobStore) -> Vec<BlobError> {
    let part = Part {
        name: "a".to_owned(),
        range: 0..1,
    };
    let ended = [
        blobs.create("a", b"x"),
        blobs.upload("b", &vec![0; 100]),
        blobs.upload("c", &vec![0; 9 * 1024 * 1024]),
        blobs.read("a").map(drop),
        blobs.read_end("a", 1).map(drop),
        blobs.read_parts(&[part]).remove(0).map(drop),
        blobs.list("").map(drop),
        blobs.delete(&["a".to_owned()]),
    ];
    ended
        .into_iter()
        .map(|ended| ended.expect_err("the call fails"))
        .collect()
}

#[test]
fn a_wrong_secret_is_denied_and_never_printed() {
    let server = S3Server::shared();
    let options = S3Options {
        secret_key: Some("not-the-secret".to_owned()),
        ..server.options()
    };
    assert!(!format!("{options:?}").contains("not-the-secret"));
    let url = format!("s3://{}/folder", server.bucket());
    let blobs = open(&url, &options, patient()).expect("nothing is asked yet");
    assert_eq!(blobs.root(), url);
    for error in errors(&*blobs) {
        assert!(matches!(error, BlobError::Denied { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("not-the-secret"));
    }
}

#[test]
fn an_absent_bucket_is_no_store() {
    let options = S3Server::shared().options();
    let blobs = open("s3://bucket/folder", &options, patient()).expect("nothing is asked yet");
    for error in errors(&*blobs) {
        assert!(matches!(error, BlobError::NoStore { .. }), "{error:?}");
    }
}

#[test]
fn a_stopped_server_is_unavailable_and_one_that_comes_back_keeps_what_it_had() {
    let server = S3Server::start();
    let bucket = server.bucket();
    server
        .blobs(&bucket, patient())
        .create("a", b"kept")
        .expect("it is created");
    server.stop();
    for error in errors(&*server.blobs(&bucket, impatient())) {
        let attempts = match &error {
            BlobError::Unavailable { attempts, .. } => *attempts,
            _ => 0,
        };
        assert!(attempts > 1, "{error:?}");
        assert!(error.is_passing());
    }
    server.start_again();
    // It answers when it is ready; until then calls try again.
    assert_eq!(server.blobs(&bucket, patient()).read("a"), Ok(b"kept".to_vec()));
}

#[test]
fn a_frozen_server_is_unavailable() {
    let server = S3Server::start();
    let bucket = server.bucket();
    server.pause();
    for error in errors(&*server.blobs(&bucket, impatient())) {
        assert!(matches!(error, BlobError::Unavailable { .. }), "{error:?}");
    }
    server.unpause();
    // Another name than before: what waited in the server's sockets has its effect now.
    assert_eq!(server.blobs(&bucket, patient()).create("d", b"x"), Ok(()));
}

/// A server that takes connections, and gives each to `serve`. It lives as long as the process.
fn listen(serve: impl Fn(usize, TcpStream) + Send + 'static) -> S3Options {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for (number, connection) in listener.incoming().enumerate() {
            serve(number, connection.expect("a connection"));
        }
    });
    S3Options {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        ..S3Server::shared().options()
    }
}

#[test]
fn a_server_that_takes_connections_and_never_answers_is_unavailable() {
    let (sender, receiver) = std::sync::mpsc::channel();
    // They are kept, so that they stay open.
    let options = listen(move |_, connection| sender.send(connection).expect("the test keeps them"));
    let blobs = open("s3://bucket/folder", &options, impatient()).expect("nothing is asked yet");
    for error in errors(&*blobs) {
        assert!(
            matches!(&error, BlobError::Unavailable { reason, .. } if reason.contains("no answer") || reason.contains("timed out")),
            "{error:?}"
        );
    }
    assert!(receiver.try_iter().count() > 8, "the calls have tried again");
}

/// Reads a request and answers with this status; the connection ends with it.
fn answer(mut connection: TcpStream, status: &str, code: &str) {
    read_message(&mut connection);
    let body = format!("<Error><Code>{code}</Code><Message>as the test wants</Message></Error>");
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // Who asked may have given up.
    let _ = connection.write_all(format!("{head}{body}").as_bytes());
}

#[test]
fn a_server_that_is_overloaded_is_unavailable_and_asked_again() {
    for status in ["503 Slow Down", "429 Too Many Requests", "500 Internal Server Error"] {
        let options = listen(move |_, connection| answer(connection, status, "SlowDown"));
        let blobs = open("s3://bucket/folder", &options, impatient()).expect("nothing is asked yet");
        let error = blobs.create("a", b"x").expect_err("nobody takes it");
        assert!(
            matches!(&error, BlobError::Unavailable { attempts: 2.., reason, .. } if reason.ends_with("SlowDown: as the test wants")),
            "{error:?}"
        );
    }
}

#[test]
fn what_the_server_does_not_understand_fails_at_once() {
    let options = listen(|number, connection| {
        assert_eq!(number, 0, "it is asked once");
        answer(connection, "400 Bad Request", "InvalidRequest");
    });
    let blobs = open("s3://bucket/folder", &options, patient()).expect("nothing is asked yet");
    let error = blobs.create("a", b"x").expect_err("the server refuses");
    assert!(matches!(error, BlobError::Failed { .. }), "{error:?}");
}

/// Reads one HTTP message whole; empty where the other side has nothing to say.
fn read_message(connection: &mut TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(connection);
    let (mut message, mut length) = (Vec::new(), 0);
    loop {
        let start = message.len();
        if reader.read_until(b'\n', &mut message).unwrap_or(0) == 0 {
            return message;
        }
        let line = String::from_utf8_lossy(&message[start..]).to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    message.extend(body);
    message
}

/// Passes requests on to the server, each on a connection of its own, and loses the answers to the first ones.
fn losing_answers(lost: usize) -> S3Options {
    let server = S3Server::shared().endpoint().trim_start_matches("http://").to_owned();
    listen(move |number, mut connection| {
        let request = read_message(&mut connection);
        let mut upstream = TcpStream::connect(&server).expect("the server takes connections");
        upstream.write_all(&request).expect("it takes the request");
        let answer = read_message(&mut upstream);
        if number >= lost {
            let head_end = answer
                .windows(2)
                .position(|two| two == b"\r\n")
                .expect("an answer has lines");
            let (status, rest) = answer.split_at(head_end);
            let _ = connection.write_all(&[status, b"\r\nConnection: close", rest].concat());
        }
    })
}

#[test]
fn a_creation_whose_answer_was_lost_is_recognised() {
    let url = format!("s3://{}/folder", S3Server::shared().bucket());
    let metrics = Arc::new(BlobMetrics::default());
    let blobs = ObjectBlobs::open(&url, &losing_answers(1), patient(), Arc::clone(&metrics)).expect("a valid place");
    assert_eq!(blobs.create("a", b"mine"), Ok(()));
    assert_eq!(metrics.retries.get(), 1, "there was an attempt that seemed to fail");
    assert_eq!(blobs.read("a"), Ok(b"mine".to_vec()));
}

#[test]
fn another_ones_object_is_not_taken_for_ones_own_after_a_lost_answer() {
    let url = format!("s3://{}/folder", S3Server::shared().bucket());
    let direct = open(&url, &S3Server::shared().options(), patient()).expect("a valid place");
    direct.create("a", b"of another").expect("it is created");
    let blobs = open(&url, &losing_answers(1), patient()).expect("a valid place");
    assert!(matches!(blobs.create("a", b"mine"), Err(BlobError::Exists { .. })));
    assert_eq!(direct.read("a"), Ok(b"of another".to_vec()));
}

#[test]
fn a_directory_needs_its_parent() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |path: &str| {
        let url = format!("file://{}/{path}", directory.path().display());
        open(&url, &S3Options::default(), patient())
    };
    let absent = at("absent/folder").expect_err("its parent is not there");
    assert!(matches!(absent, BlobError::NoStore { .. }), "{absent:?}");
    assert!(!directory.path().join("absent").exists());
    std::fs::write(directory.path().join("file"), b"x").expect("a file");
    assert!(matches!(at("file"), Err(BlobError::NoStore { .. })));
    at("folder")
        .expect("it is created")
        .create("a", b"x")
        .expect("it can be used");
    assert_eq!(at("folder").expect("it is there").read("a"), Ok(b"x".to_vec()));
}

#[test]
fn urls_and_options_that_cannot_be_right_are_refused() {
    let refused = |url: &str, options: &S3Options| {
        let error = open(url, options, patient()).expect_err("it cannot be opened");
        assert!(matches!(error, BlobError::NoStore { .. }), "{url}: {error:?}");
        error.to_string()
    };
    let none = S3Options::default();
    for url in [
        "",
        "bucket",
        "ftp://bucket",
        "s3://",
        "s3:///folder",
        "s3://bucket//folder",
        "file://name/folder",
    ] {
        refused(url, &none);
    }
    assert!(!refused("s3://name:hidden@bucket", &none).contains("hidden"));
    let half = S3Options {
        access_key: Some("key".to_owned()),
        ..S3Options::default()
    };
    refused("s3://bucket", &half);
    let plain = S3Options {
        allow_http: false,
        ..S3Server::shared().options()
    };
    assert!(refused("s3://bucket", &plain).contains("not encrypted"));
}
