//! An S3 server in a container, with a port that survives stop and start.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use testcontainers::core::{ExecCommand, IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tidegate::blob::metrics::BlobMetrics;
use tidegate::blob::object::{ObjectBlobs, S3Options};
use tidegate::blob::{BlobLimits, BlobStore};
use tokio::runtime::Runtime;

use crate::broker::{START_ATTEMPTS, free_port, remove_after_this_process, unique};

/// Name and tag of the server's image, if another one shall be tested.
const IMAGE_VARIABLE: &str = "S3_IMAGE";
const DEFAULT_IMAGE: &str = "tidegate-s3:1.8.0";

/// The key of the image's only account.
pub const ACCESS_KEY: &str = "test";
/// The secret of the image's only account.
pub const SECRET_KEY: &str = "test-secret";

/// A server of its own for one test. The container is removed when this is dropped.
pub struct S3Server {
    container: Option<ContainerAsync<GenericImage>>,
    runtime: Runtime,
    endpoint: String,
}

impl S3Server {
    /// Starts a server without buckets.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime for the container client");
        let image = std::env::var(IMAGE_VARIABLE).unwrap_or_else(|_| DEFAULT_IMAGE.to_owned());
        let (name, tag) = image.split_once(':').expect("the image is given as name:tag");
        let mut last_error = String::new();
        for _ in 0..START_ATTEMPTS {
            let port = free_port();
            let request = GenericImage::new(name, tag)
                .with_wait_for(WaitFor::message_on_stdout("service listening on"))
                .with_mapped_port(port, 7070.tcp());
            match runtime.block_on(request.start()) {
                Ok(container) => {
                    remove_after_this_process(container.id());
                    return Self {
                        container: Some(container),
                        runtime,
                        endpoint: format!("http://127.0.0.1:{port}"),
                    };
                }
                // Somebody else may have taken the port meanwhile.
                Err(error) => last_error = error.to_string(),
            }
        }
        panic!("no S3 server started; the last error was: {last_error}");
    }

    /// The server that all tests of this process share; they must not hurt it, and each has a bucket of its own.
    pub fn shared() -> &'static S3Server {
        static SERVER: OnceLock<S3Server> = OnceLock::new();
        // Lives as long as the process; the container is removed after it.
        SERVER.get_or_init(S3Server::start)
    }

    /// A new bucket, which nobody else uses.
    pub fn bucket(&self) -> String {
        let bucket = unique("bucket");
        // The server keeps a bucket as a directory.
        let made = self.runtime.block_on(
            self.container()
                .exec(ExecCommand::new(["mkdir", &format!("/data/{bucket}")])),
        );
        let mut made = made.expect("a command runs in the container");
        let output = self
            .runtime
            .block_on(made.stderr_to_vec())
            .expect("its output can be read");
        assert!(output.is_empty(), "{}", String::from_utf8_lossy(&output));
        bucket
    }

    /// Where clients on this host find the server.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How clients reach it.
    pub fn options(&self) -> S3Options {
        S3Options {
            endpoint: Some(self.endpoint.clone()),
            region: Some("us-east-1".to_owned()),
            access_key: Some(ACCESS_KEY.to_owned()),
            secret_key: Some(SECRET_KEY.to_owned()),
            allow_http: true,
            virtual_hosted: false,
        }
    }

    /// A folder in a bucket.
    pub fn blobs(&self, bucket: &str, limits: BlobLimits) -> Arc<dyn BlobStore> {
        let url = format!("s3://{bucket}/a/folder");
        ObjectBlobs::open(&url, &self.options(), limits, Arc::new(BlobMetrics::default()))
            .expect("the options are right")
    }

    /// Freezes the server: connections are taken, requests get no answer.
    pub fn pause(&self) {
        self.runtime
            .block_on(self.container().pause())
            .expect("the container can be paused");
    }

    /// Ends [`S3Server::pause`].
    pub fn unpause(&self) {
        self.runtime
            .block_on(self.container().unpause())
            .expect("the container can go on");
    }

    /// Stops the server: connections are refused.
    pub fn stop(&self) {
        self.runtime
            .block_on(self.container().stop())
            .expect("the container can be stopped");
    }

    /// Starts a stopped server under the same address. It answers a moment later.
    pub fn start_again(&self) {
        self.runtime
            .block_on(self.container().start())
            .expect("the container can be started");
    }

    fn container(&self) -> &ContainerAsync<GenericImage> {
        self.container
            .as_ref()
            .expect("the container is there until the server is dropped")
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            // The container is gone by itself when this process ends, should this fail.
            let _ = self.runtime.block_on(container.rm());
        }
    }
}

/// Limits that fit a busy machine.
pub fn patient() -> BlobLimits {
    BlobLimits {
        request_timeout: Duration::from_secs(20),
        call_timeout: Duration::from_secs(60),
        concurrency: 8,
        upload_bytes_per_second: 0,
        download_bytes_per_second: 0,
    }
}

/// Limits that soon give up.
pub fn impatient() -> BlobLimits {
    BlobLimits {
        request_timeout: Duration::from_millis(300),
        call_timeout: Duration::from_millis(1_500),
        ..patient()
    }
}
