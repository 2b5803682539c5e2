//! From a URL to a store and a folder in it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::failure::reason;
use crate::blob::{BlobError, BlobLimits, BlobResult};

/// A host that does not even take a connection is given up before the time for a whole request is over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How an S3 server is reached. What is not given is found as AWS's own tools find it: in the environment, by web identity, from
/// the machine's instance profile.
#[derive(Clone, Default)]
pub struct S3Options {
    /// Where the server is, for example `https://example.com`; that of AWS if not given.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: Option<String>,
    /// The name of a pair of keys; both or none are given.
    pub access_key: Option<String>,
    /// Its secret.
    pub secret_key: Option<String>,
    /// Whether the endpoint may be reached without encryption.
    pub allow_http: bool,
    /// Whether the bucket is a part of the host's name (`bucket.host`), not of the path (`host/bucket`).
    pub virtual_hosted: bool,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key", &self.access_key)
            .field("secret_key", &self.secret_key.as_ref().map(|_| "…"))
            .field("allow_http", &self.allow_http)
            .field("virtual_hosted", &self.virtual_hosted)
            .finish()
    }
}

/// What stands behind the port.
pub(super) enum Store {
    /// Kept apart, since parts of its uploads can be sent again.
    S3(AmazonS3),
    /// A directory, or memory.
    Near(Arc<dyn ObjectStore>),
}

impl Store {
    pub(super) fn objects(&self) -> &dyn ObjectStore {
        match self {
            Store::S3(s3) => s3,
            Store::Near(store) => &**store,
        }
    }
}

/// A store, the folder in it (empty: all of it), and how both are named to people.
pub(super) struct Place {
    pub(super) store: Store,
    pub(super) folder: Path,
    pub(super) root: String,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Place {
    /// Opens what the URL names. Of these only a directory is touched: it is created where that is wanted.
    pub(super) fn open(url: &str, s3: &S3Options, limits: &BlobLimits, creates: bool) -> BlobResult<Self> {
        match url.split_once("://") {
            Some(("s3", rest)) => Self::s3(rest, s3, limits),
            Some(("file", directory)) => Self::directory(directory, creates),
            Some(("memory", name)) => Self::memory(name),
            _ => Err(unusable(
                "snapshot.url".to_owned(),
                "it is none of s3://bucket/folder, file:///directory, memory://name",
            )),
        }
    }

    fn s3(rest: &str, options: &S3Options, limits: &BlobLimits) -> BlobResult<Self> {
        let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || bucket.contains(['@', ':', '?', '#']) {
            // Not shown, since there may be a secret in it.
            return Err(unusable("s3://…".to_owned(), "the bucket's name is missing or none"));
        }
        let folder = folder.trim_end_matches('/');
        let root = format!("s3://{rest}");
        let root = root.trim_end_matches('/').to_owned();
        let parsed = Path::parse(folder).map_err(|error| unusable(root.clone(), &reason(&error)))?;
        if parsed.as_ref() != folder {
            return Err(unusable(root, "the folder has an empty part"));
        }
        let store = s3_store(bucket, options, limits).map_err(|reason| unusable(root.clone(), &reason))?;
        Ok(Self {
            store: Store::S3(store),
            folder: parsed,
            root,
        })
    }

    fn directory(directory: &str, creates: bool) -> BlobResult<Self> {
        let root = format!("file://{directory}");
        if !directory.starts_with('/') {
            return Err(unusable(
                root,
                "a directory is given by its absolute path, as in file:///directory",
            ));
        }
        let path = FilePath::new(directory);
        let made = match creates {
            true => create_directory(path),
            false => fs::read_dir(path).map(drop),
        };
        made.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => BlobError::Denied {
                root: root.clone(),
                name: "its directory".to_owned(),
                operation: if creates { "write" } else { "read" },
                reason: error.to_string(),
            },
            _ => unusable(root.clone(), &error.to_string()),
        })?;
        let files = LocalFileSystem::new_with_prefix(directory);
        let files = files.map_err(|error| unusable(root.clone(), &reason(&error)))?;
        Ok(Self {
            // An object is on the disk, and so is its entry in the directory, before its writer is told so.
            store: Store::Near(Arc::new(files.with_fsync(true))),
            folder: Path::default(),
            root,
        })
    }

    /// One store per name and process, so that all who open it see the same.
    fn memory(name: &str) -> BlobResult<Self> {
        static STORES: Mutex<BTreeMap<String, Arc<InMemory>>> = Mutex::new(BTreeMap::new());
        let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
        let store = Arc::clone(stores.entry(name.to_owned()).or_default());
        Ok(Self {
            store: Store::Near(store),
            folder: Path::default(),
            root: format!("memory://{name}"),
        })
    }
}

fn s3_store(bucket: &str, options: &S3Options, limits: &BlobLimits) -> Result<AmazonS3, String> {
    let mut builder = match (&options.access_key, &options.secret_key) {
        // Nothing from the environment then: a session token from there would not belong to these keys.
        (Some(access), Some(secret)) => AmazonS3Builder::new()
            .with_access_key_id(access)
            .with_secret_access_key(secret),
        (None, None) => AmazonS3Builder::from_env(),
        _ => return Err("the access key and its secret are given together, or neither".to_owned()),
    };
    if let Some(endpoint) = &options.endpoint {
        if endpoint.starts_with("http:") && !options.allow_http {
            return Err("the endpoint is not encrypted, and that is not allowed".to_owned());
        }
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    let client = ClientOptions::new()
        .with_allow_http(options.allow_http)
        .with_connect_timeout(CONNECT_TIMEOUT.min(limits.request_timeout))
        .with_timeout(limits.request_timeout);
    // Attempts are counted and bounded in `call`; inside of one there is no second try.
    let no_retries = RetryConfig {
        max_retries: 0,
        retry_timeout: limits.request_timeout,
        ..RetryConfig::default()
    };
    builder
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_retry(no_retries)
        .with_virtual_hosted_style_request(options.virtual_hosted)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // The server compares it with what arrived.
        .with_checksum_algorithm(Checksum::SHA256)
        .build()
        .map_err(|error| reason(&error))
}

/// Creates the last part of a path, durably; the rest has to be there.
fn create_directory(directory: &FilePath) -> io::Result<()> {
    match fs::create_dir(directory) {
        Ok(()) => match directory.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::metadata(directory)?.is_dir() {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        },
        Err(error) => Err(error),
    }
}

fn unusable(root: String, reason: &str) -> BlobError {
    let reason = reason.to_owned();
    BlobError::NoStore { root, reason }
}
