//! The table of all options. It drives reading, checking, the reference, and the shipped default file.

use super::kind::{Kind, UNLIMITED_BYTES, UNLIMITED_MS};
use crate::errors::sounds_secret;

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Full name, sections joined by dots.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The default as TOML writes it; `None`: unset.
    pub default: Option<&'static str>,
    /// What it is for and what follows from it.
    pub doc: &'static str,
}

const fn option(name: &'static str, kind: Kind, default: Option<&'static str>, doc: &'static str) -> OptionSpec {
    OptionSpec {
        name,
        kind,
        default,
        doc,
    }
}

const fn duration(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration { min_ms, max_ms }
}

const fn size(min_bytes: u64) -> Kind {
    Kind::Size {
        min_bytes,
        max_bytes: UNLIMITED_BYTES,
    }
}

const fn choice(words: &'static [&'static str]) -> Kind {
    Kind::Choice { words }
}

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const STRATEGIES: &[&str] = &["changelog", "snapshot", "changelog+snapshot"];
const POLICIES: &[&str] = &["stop", "skip", "dead_letter"];

/// Every option there is, in the order of the reference.
pub const OPTIONS: &[OptionSpec] = &[
    option(
        "workers",
        Kind::Integer {
            min: 1,
            max: 256,
            unit: "threads",
        },
        Some("1"),
        "Threads that run tasks. Each has its own producer and its own transaction. More than there are tasks is of no use. Never changes results.",
    ),
    option(
        "guarantee",
        choice(&["exactly_once", "at_least_once"]),
        Some("\"exactly_once\""),
        "Whether output, offsets and state commit in one Kafka transaction (exactly_once), or the same epochs run without one and a crash may repeat output (at_least_once).",
    ),
    option(
        "durability",
        choice(STRATEGIES),
        Some("\"changelog\""),
        "What makes state durable. changelog: compacted changelog topics, written in the transaction. snapshot: each commit's changes in one object of an object store, stored before the transaction commits, and base snapshots now and then; no changelog topics. changelog+snapshot: changelog topics that are trimmed behind base snapshots. The last two need snapshot.url. It can be changed on a running application, by a restart of one instance after the other: both are written until the new one is complete.",
    ),
    option(
        "application.id",
        Kind::Name,
        None,
        "Name of the application: its consumer group, and the prefix of its internal topics and transactional ids. All instances of an application share it, and nothing else may use it. Needed with Kafka; with the embedded log it is the topology's name unless set.",
    ),
    option(
        "instance.id",
        Kind::Name,
        None,
        "Static identity of this instance in the group, unique among its instances, for example the host's name. A restart within kafka.session_timeout then moves no task. Unset: dynamic membership.",
    ),
    option(
        "commit.interval",
        duration(1, 5 * MINUTE),
        Some("\"100ms\""),
        "Time between two commits while records flow: the latency of output as a read_committed consumer sees it, per hop across a repartition topic. After a commit that took long the next one waits for twice that time, at most for the interval. Never changes results.",
    ),
    option(
        "kafka.bootstrap_servers",
        Kind::Addresses,
        None,
        "Brokers to find the cluster by. Needed unless embedded.enabled is set.",
    ),
    option(
        "kafka.startup_timeout",
        duration(SECOND, HOUR),
        Some("\"60s\""),
        "How long an instance tries to reach Kafka at start. After that it exits with code 3.",
    ),
    option(
        "kafka.session_timeout",
        duration(SECOND, HOUR),
        Some("\"45s\""),
        "Time without heartbeats after which the group gives an instance up and its tasks move. The broker sets limits (group.min.session.timeout.ms, 6 s).",
    ),
    option(
        "kafka.transaction_timeout",
        duration(SECOND, HOUR),
        Some("\"10s\""),
        "A transaction that is open longer is aborted by the broker. At least twice commit.interval, at most the broker's transaction.max.timeout.ms (15 min).",
    ),
    option(
        "kafka.linger",
        duration(0, MINUTE),
        Some("\"5ms\""),
        "How long a record may wait for others to share its request; at most a fifth of commit.interval, whatever is set. A commit does not wait for it.",
    ),
    option(
        "kafka.fetch_buffer",
        size(MIB),
        Some("\"4MiB\""),
        "Records that the client fetches ahead, per worker and partition. It keeps some 2,500 records ready where they are smaller than that.",
    ),
    option(
        "kafka.send_buffer",
        size(MIB),
        Some("\"64MiB\""),
        "Memory for records that the client has not yet sent, per worker. Processing pauses when it is full.",
    ),
    option(
        "kafka.producer_engine",
        choice(&["auto", "native", "librdkafka"]),
        Some("\"auto\""),
        "Which client library sends the records of a transaction. native: Tidegate's own, which needs brokers of Kafka 4.0 or later whose feature transaction.version is 2. librdkafka: works with older ones too; commits take longer. auto: native where brokers and client options allow it, else librdkafka; the log says which, and why. It may be changed at any restart.",
    ),
    option(
        "kafka.security.protocol",
        choice(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]),
        Some("\"plaintext\""),
        "How connections to brokers are secured.",
    ),
    option(
        "kafka.security.sasl_mechanism",
        choice(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]),
        None,
        "How the instance identifies itself. Needed with sasl_plaintext and sasl_ssl.",
    ),
    option(
        "kafka.security.username",
        Kind::Text,
        None,
        "User name. Needed with sasl_plaintext and sasl_ssl.",
    ),
    option(
        "kafka.security.password",
        Kind::Secret,
        None,
        "Password. Needed with sasl_plaintext and sasl_ssl. Better set by the environment than in a file.",
    ),
    option(
        "kafka.security.ca_file",
        Kind::Text,
        None,
        "File with the certificates of the authorities that sign the brokers' certificates (PEM). Unset: those of the system.",
    ),
    option(
        "kafka.security.certificate_file",
        Kind::Text,
        None,
        "File with the client's certificate (PEM), where brokers ask for one.",
    ),
    option(
        "kafka.security.key_file",
        Kind::Text,
        None,
        "File with the private key of the client's certificate (PEM).",
    ),
    option(
        "kafka.security.key_password",
        Kind::Secret,
        None,
        "Password of the private key.",
    ),
    option(
        "kafka.common",
        Kind::ClientOptions,
        None,
        "Options of the Kafka client (librdkafka) for all clients, for example \"socket.keepalive.enable\" = true. Options that Tidegate sets itself are refused.",
    ),
    option(
        "kafka.consumer",
        Kind::ClientOptions,
        None,
        "Options of the Kafka client for consumers only.",
    ),
    option(
        "kafka.producer",
        Kind::ClientOptions,
        None,
        "Options of the Kafka client for producers only.",
    ),
    option(
        "kafka.admin",
        Kind::ClientOptions,
        None,
        "Options of the Kafka client for administration only.",
    ),
    option(
        "embedded.enabled",
        Kind::Boolean,
        Some("false"),
        "Uses the log inside the process in place of Kafka. For demos and trials; kafka.* is then unused. It is kept in memory and ends with the process, unless embedded.dir is set.",
    ),
    option(
        "embedded.dir",
        Kind::Text,
        None,
        "Directory that keeps the embedded log, for one process at a time. It survives a crash of the process; a crash of the machine may lose what was written since the last clean end. Unset: memory only.",
    ),
    option(
        "embedded.partitions",
        Kind::Integer {
            min: 1,
            max: 1024,
            unit: "partitions",
        },
        Some("1"),
        "Partitions of the topology's topics, which are created in the embedded log at start.",
    ),
    option(
        "topics.replication_factor",
        Kind::Integer {
            min: 1,
            max: 32,
            unit: "replicas",
        },
        None,
        "Replication factor of internal topics. Unset: the broker's default.",
    ),
    option(
        "topics.purge_interval",
        duration(SECOND, 24 * HOUR),
        Some("\"30s\""),
        "How often records of repartition topics that have been processed are deleted.",
    ),
    option(
        "snapshot.url",
        Kind::Text,
        None,
        "Where snapshots are kept: s3://bucket/folder, or file:///directory. The application's own folder is made in it. Needed unless durability is changelog.",
    ),
    option(
        "snapshot.interval",
        duration(1, 24 * HOUR),
        Some("\"60s\""),
        "Time between two base snapshots of a task while its state changes. Shorter: a shorter chain of increments or tail of the changelog to be read in a restore, and more requests. Never changes results.",
    ),
    option(
        "snapshot.chain_objects",
        Kind::Integer {
            min: 1,
            max: 100_000,
            unit: "objects",
        },
        Some("1000"),
        "A base snapshot is made early when so many increments have been stored since the last one. With durability = \"snapshot\" only.",
    ),
    option(
        "snapshot.chain_size",
        size(MIB),
        Some("\"256MiB\""),
        "The same by their size.",
    ),
    option(
        "snapshot.keep",
        Kind::Integer {
            min: 1,
            max: 1000,
            unit: "snapshots",
        },
        Some("3"),
        "Base snapshots that are kept of each task. With more of them a restore survives more damage in the store, and changelogs are trimmed less far.",
    ),
    option(
        "snapshot.grace",
        duration(MINUTE, 30 * 24 * HOUR),
        Some("\"30m\""),
        "How long an object stays that nobody refers to any more. Longer than any restore, and than twice the time that a base snapshot takes; far longer than the clocks of the hosts differ.",
    ),
    option(
        "snapshot.persist_timeout",
        duration(10, HOUR),
        Some("\"5s\""),
        "A commit whose increments are not stored within this time is aborted and redone; it ends before kafka.transaction_timeout. With durability = \"snapshot\" only.",
    ),
    option(
        "snapshot.spill",
        Kind::Boolean,
        Some("false"),
        "Whether a commit whose increments the object store does not take goes on with them in a spill topic, in its transaction, until the store is back. With durability = \"snapshot\" only. Instances may differ in it.",
    ),
    option(
        "snapshot.spill_after",
        duration(1, MINUTE),
        Some("\"500ms\""),
        "For so long the store is waited for before that; while it is known to be away, not at all. Less than snapshot.persist_timeout.",
    ),
    option(
        "snapshot.collect_interval",
        duration(SECOND, 24 * HOUR),
        Some("\"6h\""),
        "How often each worker lists the folders of its tasks for objects that nobody refers to, and deletes them: what attempts that came to nothing, crashes and moves of tasks have left over. What a base snapshot supersedes is deleted at once, without that.",
    ),
    option(
        "snapshot.restore",
        choice(&["full", "lazy"]),
        Some("\"full\""),
        "Whether a task waits for all files of a base snapshot before it runs. full: it does. lazy: it runs as soon as its database can be opened, and reads wait for the files that they need, which come first. With state.backend = \"rocksdb\" only; databases in memory are always restored in full.",
    ),
    option(
        "snapshot.lazy_timeout",
        duration(10, HOUR),
        Some("\"5s\""),
        "A read of a lazy restore waits for a file so long, and for one more attempt to fetch it; then the epoch is aborted and redone. The worker's other tasks wait with it, so it ends before kafka.transaction_timeout.",
    ),
    option(
        "snapshot.request_timeout",
        duration(10, HOUR),
        Some("\"2s\""),
        "One attempt of one request to the object store may take this long, and a part of an upload 8 MiB.",
    ),
    option(
        "snapshot.call_timeout",
        duration(10, HOUR),
        Some("\"4s\""),
        "All attempts of one call on the object store may take this long together.",
    ),
    option(
        "snapshot.concurrency",
        Kind::Integer {
            min: 1,
            max: 256,
            unit: "requests",
        },
        Some("8"),
        "Requests to the object store at the same time. A restore holds so many pieces of 8 MiB in memory.",
    ),
    option(
        "snapshot.upload_rate",
        size(0),
        Some("\"0B\""),
        "Bytes per second that base snapshots upload, at most. 0B: no bound. Increments are not held back by it.",
    ),
    option(
        "snapshot.download_rate",
        size(0),
        Some("\"0B\""),
        "Bytes per second that restores download, at most. 0B: no bound.",
    ),
    option(
        "snapshot.s3.endpoint",
        Kind::Text,
        None,
        "Address of an S3-compatible server, for example http://localhost:7070. Unset: Amazon's.",
    ),
    option(
        "snapshot.s3.region",
        Kind::Text,
        None,
        "Region of the bucket. Unset: that of the environment (AWS_REGION).",
    ),
    option(
        "snapshot.s3.access_key",
        Kind::Text,
        None,
        "Access key. Unset, with the secret key: what the environment, the instance's role or its web identity gives.",
    ),
    option(
        "snapshot.s3.secret_key",
        Kind::Secret,
        None,
        "Secret key. Better set by the environment than in a file.",
    ),
    option(
        "snapshot.s3.allow_http",
        Kind::Boolean,
        Some("false"),
        "Allows an endpoint without TLS.",
    ),
    option(
        "snapshot.s3.virtual_hosted",
        Kind::Boolean,
        Some("false"),
        "Puts the bucket's name into the host's name, as some servers want it, in place of the path.",
    ),
    option(
        "savepoint.poll",
        duration(0, HOUR),
        Some("\"5s\""),
        "Time between two looks of each worker whether a savepoint is asked for, where snapshot.url is set: one listing of an empty folder. 0s: never, and no savepoint can be taken.",
    ),
    option(
        "savepoint.timeout",
        duration(SECOND, HOUR),
        Some("\"30s\""),
        "For so long at most the tasks stand still for a savepoint. After that they go on, and the savepoint fails.",
    ),
    option(
        "state.dir",
        Kind::Text,
        Some("\"tidegate-state\""),
        "Directory of this instance's state, one subdirectory per task. Instances on one host need one each. A restart finds its state here and restores nothing.",
    ),
    option(
        "state.backend",
        choice(&["rocksdb", "memory"]),
        Some("\"rocksdb\""),
        "Where state lives: on the disk in RocksDB, or in memory, which is restored from the changelog at every start.",
    ),
    option(
        "state.cache",
        size(0),
        Some("\"64MiB\""),
        "Memory for recent values in front of the backend, for the whole instance. 0B switches it off. Never changes results.",
    ),
    option(
        "state.block_cache",
        size(MIB),
        Some("\"16MiB\""),
        "Memory for RocksDB's block cache, shared by all tasks.",
    ),
    option(
        "state.write_buffer",
        size(MIB),
        Some("\"28MiB\""),
        "Memory for RocksDB's write buffers, shared by all tasks.",
    ),
    option(
        "state.allow_empty",
        Kind::Boolean,
        Some("false"),
        "Starts a task empty although its committed offsets say that there was state. This loses that state: set it for one start only.",
    ),
    option(
        "limits.overlay",
        size(64 * 1024),
        Some("\"16MiB\""),
        "A commit starts early when a worker's uncommitted state writes hold this much memory.",
    ),
    option(
        "limits.parked",
        size(64 * 1024),
        Some("\"16MiB\""),
        "Processing pauses while outputs that wait behind a running commit hold this much memory, per worker.",
    ),
    option(
        "limits.copy_slice",
        size(MIB),
        Some("\"4MiB\""),
        "While durability changes to changelog, each commit of a task copies about so much of its state to the changelogs.",
    ),
    option(
        "limits.buffered_records",
        Kind::Integer {
            min: 1,
            max: 100_000_000,
            unit: "records",
        },
        Some("100000"),
        "Records fetched and not yet processed, per worker. Fetching pauses above.",
    ),
    option(
        "tasks.max_idle",
        duration(0, UNLIMITED_MS),
        Some("\"0s\""),
        "How long a task waits for records of an input partition that is empty but caught up, so that inputs are taken in the order of their timestamps. What the log already has is always waited for.",
    ),
    option(
        "tasks.revoke_timeout",
        duration(100, HOUR),
        Some("\"20s\""),
        "How long a task that moves to another instance may take to commit and close.",
    ),
    option(
        "tasks.restore_timeout",
        duration(SECOND, 24 * HOUR),
        Some("\"5m\""),
        "A restore from changelogs that makes no progress for this long fails and says why; one that waits for the object store says so and goes on.",
    ),
    option(
        "stores.durability",
        Kind::ChoiceByName { words: STRATEGIES },
        None,
        "What makes single stores durable, by name, where it is not what durability says. Stores of one sub-topology are committed and restored as one, so they need the same.",
    ),
    option(
        "errors.default",
        choice(POLICIES),
        Some("\"stop\""),
        "What happens to a record that does not decode or whose operator fails. stop: the instance stops and names the record. skip: it is counted. dead_letter: it goes to errors.dead_letter_topic, within the transaction.",
    ),
    option(
        "errors.nodes",
        Kind::ChoiceByName { words: POLICIES },
        None,
        "The same for single nodes, by name.",
    ),
    option(
        "errors.dead_letter_topic",
        Kind::Name,
        None,
        "Topic for bad records, which must exist. Headers name topic, partition, offset, node and error. Needed where a policy is dead_letter.",
    ),
    option(
        "http.enabled",
        Kind::Boolean,
        Some("true"),
        "Serves /metrics (Prometheus), /healthz and /readyz.",
    ),
    option(
        "http.address",
        Kind::SocketAddress,
        Some("\"127.0.0.1:9464\""),
        "Address and port to listen on. Port 0 takes any free one, which the log names.",
    ),
    option(
        "log.format",
        choice(&["human", "json"]),
        Some("\"human\""),
        "Form of log lines on the standard error output.",
    ),
    option(
        "log.level",
        Kind::LogFilter,
        Some("\"info\""),
        "Least level that is logged (error, warn, info, debug, trace), or directives by module such as \"info,tidegate::log=debug\".",
    ),
    option(
        "parameters",
        Kind::Parameters,
        None,
        "Handed to the topology, which says what it takes and refuses the rest.",
    ),
];

impl OptionSpec {
    /// Finds an option by its full name.
    pub fn named(name: &str) -> Option<&'static OptionSpec> {
        OPTIONS.iter().find(|option| option.name == name)
    }

    /// Whether `key` of this option's table, or the option itself if it has none, must not be printed.
    pub fn is_secret(&self, key: &str) -> bool {
        matches!(self.kind, Kind::Secret) || (self.kind.is_table() && sounds_secret(key))
    }

    /// Section of the option: everything before its last dot.
    pub fn section(&self) -> &'static str {
        self.name.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Name within its section.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, short)| short)
    }

    /// The environment variable that sets it.
    pub fn environment_variable(&self) -> String {
        environment_variable(self.name)
    }
}

/// What environment variables that set options begin with.
pub const ENVIRONMENT_PREFIX: &str = "TIDEGATE__";

/// The environment variable for a dotted name.
pub fn environment_variable(name: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", name.replace('.', "__").to_ascii_uppercase())
}
