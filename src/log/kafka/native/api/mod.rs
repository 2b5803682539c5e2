//! The requests of a transactional producer, each in the one version that it speaks.
//!
//! All of them belong to version 2 of the transaction protocol (KIP-890): partitions and offsets join a transaction by being sent,
//! and each transaction has an epoch of its own. A broker that has finalised that version speaks all of these.

mod session;

use super::codes::BrokerCode;
use super::records::{Batch, Identity};
use super::wire::{Malformed, Reader, Writer};
use crate::log::{CommitOffset, GroupMetadata};
pub(super) use session::*;

/// Number, version and form of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Api {
    pub name: &'static str,
    pub key: i16,
    pub version: i16,
    /// Header of the request with tagged fields.
    request_tags: bool,
    /// Header of the answer with tagged fields.
    response_tags: bool,
}

const fn flexible(name: &'static str, key: i16, version: i16) -> Api {
    Api {
        name,
        key,
        version,
        request_tags: true,
        response_tags: true,
    }
}

pub(super) const PRODUCE: Api = flexible("Produce", 0, 12);
pub(super) const METADATA: Api = flexible("Metadata", 3, 12);
pub(super) const FIND_COORDINATOR: Api = flexible("FindCoordinator", 10, 4);
pub(super) const INIT_PRODUCER_ID: Api = flexible("InitProducerId", 22, 5);
pub(super) const END_TXN: Api = flexible("EndTxn", 26, 5);
pub(super) const TXN_OFFSET_COMMIT: Api = flexible("TxnOffsetCommit", 28, 5);
pub(super) const SASL_AUTHENTICATE: Api = flexible("SaslAuthenticate", 36, 2);
pub(super) const SASL_HANDSHAKE: Api = Api {
    name: "SaslHandshake",
    key: 17,
    version: 1,
    request_tags: false,
    response_tags: false,
};
/// Its answer has the oldest header, so that every client can read it.
pub(super) const API_VERSIONS: Api = Api {
    name: "ApiVersions",
    key: 18,
    version: 3,
    request_tags: true,
    response_tags: false,
};

impl Api {
    /// Begins a request, with room for its length.
    pub fn begin(&self, out: &mut Writer, correlation: i32, client_id: &str) {
        out.0.clear();
        out.i32(0);
        out.i16(self.key);
        out.i16(self.version);
        out.i32(correlation);
        out.old_text(client_id);
        if self.request_tags {
            out.no_tags();
        }
    }

    /// Reads the header of an answer, and answers what it is about.
    pub fn begin_answer(&self, answer: &mut Reader<'_>) -> Result<i32, Malformed> {
        let correlation = answer.i32()?;
        if self.response_tags {
            answer.skip_tags()?;
        }
        Ok(correlation)
    }
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn endpoint(host: &str, port: i32) -> Result<Endpoint, Malformed> {
    Ok(Endpoint {
        host: host.to_owned(),
        port: u16::try_from(port).map_err(|_| Malformed("a port"))?,
    })
}

pub(super) fn metadata<'a>(out: &mut Writer, topics: impl ExactSizeIterator<Item = &'a str>) {
    out.array(topics.len());
    for topic in topics {
        out.i64(0); // No id of the topic: it is named.
        out.i64(0);
        out.text(topic);
        out.no_tags();
    }
    out.bool(false); // A missing topic is an error, and never made.
    out.bool(false);
    out.no_tags();
}

/// What is known of a topic.
#[derive(Debug)]
pub(super) struct TopicMetadata {
    pub name: String,
    pub code: BrokerCode,
    /// The leader of each partition, negative for none.
    pub leaders: Vec<i32>,
}

/// Brokers and topics.
#[derive(Debug)]
pub(super) struct MetadataAnswer {
    pub brokers: Vec<(i32, Endpoint)>,
    pub topics: Vec<TopicMetadata>,
}

pub(super) fn metadata_answer(mut answer: Reader<'_>) -> Result<MetadataAnswer, Malformed> {
    answer.i32()?;
    let mut brokers = Vec::new();
    for _ in 0..answer.array()? {
        let id = answer.i32()?;
        let host = answer.text()?;
        let port = answer.i32()?;
        answer.text()?;
        answer.skip_tags()?;
        brokers.push((id, endpoint(host, port)?));
    }
    answer.text()?;
    answer.i32()?;
    let mut topics = Vec::new();
    for _ in 0..answer.array()? {
        let code = BrokerCode(answer.i16()?);
        let name = answer.text()?.to_owned();
        answer.skip(16)?;
        answer.bool()?;
        let mut partitions = Vec::new();
        for _ in 0..answer.array()? {
            answer.i16()?;
            let (partition, leader) = (answer.i32()?, answer.i32()?);
            answer.i32()?;
            for _ in 0..3 {
                let replicas = answer.array()?;
                answer.skip(replicas.saturating_mul(4))?;
            }
            answer.skip_tags()?;
            partitions.push((partition, leader));
        }
        answer.i32()?;
        answer.skip_tags()?;
        partitions.sort_unstable();
        let complete = (0..)
            .zip(&partitions)
            .all(|(index, (partition, _))| index == *partition);
        if !complete {
            return Err(Malformed("partitions without a hole"));
        }
        let leaders = partitions.into_iter().map(|(_, leader)| leader).collect();
        topics.push(TopicMetadata { name, code, leaders });
    }
    Ok(MetadataAnswer { brokers, topics })
}

/// Whose coordinator is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum CoordinatorOf<'a> {
    Group(&'a str),
    Transaction(&'a str),
}

pub(super) fn find_coordinator(out: &mut Writer, of: CoordinatorOf<'_>) {
    let (kind, key) = match of {
        CoordinatorOf::Group(group) => (0, group),
        CoordinatorOf::Transaction(id) => (1, id),
    };
    out.i8(kind);
    out.array(1);
    out.text(key);
    out.no_tags();
}

pub(super) fn find_coordinator_answer(mut answer: Reader<'_>) -> Result<Result<Endpoint, BrokerCode>, Malformed> {
    answer.i32()?;
    if answer.array()? == 0 {
        return Err(Malformed("a coordinator"));
    }
    answer.text()?;
    answer.i32()?;
    let host = answer.text()?;
    let port = answer.i32()?;
    let code = BrokerCode(answer.i16()?);
    match code.is_success() {
        true => endpoint(host, port).map(Ok),
        false => Ok(Err(code)),
    }
}

pub(super) fn init_producer_id(out: &mut Writer, transactional_id: &str, timeout_ms: i32) {
    out.text(transactional_id);
    out.i32(timeout_ms);
    out.i64(-1);
    out.i16(-1);
    out.no_tags();
}

/// The answer to [`INIT_PRODUCER_ID`] and to [`END_TXN`], which have the same form.
pub(super) fn identity_answer(mut answer: Reader<'_>) -> Result<Result<Identity, BrokerCode>, Malformed> {
    answer.i32()?;
    let code = BrokerCode(answer.i16()?);
    let (id, epoch) = (answer.i64()?, answer.i16()?);
    match (code.is_success(), id >= 0 && epoch >= 0) {
        (true, true) => Ok(Ok(Identity { id, epoch })),
        (true, false) => Err(Malformed("the producer's id and epoch")),
        (false, _) => Ok(Err(code)),
    }
}

pub(super) fn end_txn(out: &mut Writer, transactional_id: &str, identity: Identity, commits: bool) {
    out.text(transactional_id);
    out.i64(identity.id);
    out.i16(identity.epoch);
    out.bool(commits);
    out.no_tags();
}

pub(super) fn txn_offset_commit(
    out: &mut Writer,
    transactional_id: &str,
    identity: Identity,
    group: &GroupMetadata,
    offsets: &[CommitOffset],
) {
    out.text(transactional_id);
    out.text(&group.group);
    out.i64(identity.id);
    out.i16(identity.epoch);
    out.i32(group.generation);
    out.text(&group.member_id);
    out.nullable_text(group.instance_id.as_deref());
    // Offsets of one topic stand together where they come together.
    let topics = || offsets.chunk_by(|a, b| a.partition.topic == b.partition.topic);
    out.array(topics().count());
    for offsets in topics() {
        out.text(&offsets[0].partition.topic);
        out.array(offsets.len());
        for offset in offsets {
            out.i32(offset.partition.partition);
            out.i64(offset.offset);
            out.i32(-1);
            out.text(&offset.metadata);
            out.no_tags();
        }
        out.no_tags();
    }
    out.no_tags();
}

/// The first error, with the partition that it is about.
pub(super) fn txn_offset_commit_answer(mut answer: Reader<'_>) -> Result<Option<(BrokerCode, String)>, Malformed> {
    let mut first = None;
    answer.i32()?;
    for _ in 0..answer.array()? {
        let topic = answer.text()?;
        for _ in 0..answer.array()? {
            let partition = answer.i32()?;
            let code = BrokerCode(answer.i16()?);
            answer.skip_tags()?;
            if !code.is_success() {
                first.get_or_insert_with(|| (code, format!("{topic}-{partition}")));
            }
        }
        answer.skip_tags()?;
    }
    Ok(first)
}

/// A partition's part of a produce request.
pub(super) struct ProducePart<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub batch: &'a Batch,
}

/// `parts` of one topic stand together; no partition comes twice.
pub(super) fn produce<'a>(
    out: &mut Writer,
    transactional_id: &str,
    timeout_ms: i32,
    parts: impl Iterator<Item = ProducePart<'a>> + Clone,
) {
    out.text(transactional_id);
    out.i16(-1); // Acknowledged by all replicas in sync.
    out.i32(timeout_ms);
    let mut topics: Vec<(&str, usize)> = Vec::new();
    for part in parts.clone() {
        match topics.last_mut() {
            Some((topic, count)) if *topic == part.topic => *count += 1,
            _ => topics.push((part.topic, 1)),
        }
    }
    out.array(topics.len());
    let mut parts = parts;
    for (topic, count) in topics {
        out.text(topic);
        out.array(count);
        for part in parts.by_ref().take(count) {
            out.i32(part.partition);
            out.bytes(part.batch.encoded());
            out.no_tags();
        }
        out.no_tags();
    }
    out.no_tags();
}

/// What became of a partition's batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Produced<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub code: BrokerCode,
    pub reason: Option<&'a str>,
}

pub(super) fn produce_answer<'a>(mut answer: Reader<'a>, mut visit: impl FnMut(Produced<'a>)) -> Result<(), Malformed> {
    for _ in 0..answer.array()? {
        let topic = answer.text()?;
        for _ in 0..answer.array()? {
            let partition = answer.i32()?;
            let code = BrokerCode(answer.i16()?);
            answer.skip(3 * 8)?;
            let mut first_reason = None;
            for _ in 0..answer.array()? {
                answer.i32()?;
                let reason = answer.nullable_text()?;
                answer.skip_tags()?;
                first_reason = first_reason.or(reason);
            }
            let reason = answer.nullable_text()?;
            answer.skip_tags()?;
            visit(Produced {
                topic,
                partition,
                code,
                reason: first_reason.or(reason),
            });
        }
        answer.skip_tags()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_produce_request_names_partitions_and_reasons() {
        let mut out = Writer::default();
        out.array(1);
        out.text("topic");
        out.array(2);
        for (partition, code, reason) in [(0, 0, None), (1, 87, Some("no key"))] {
            out.i32(partition);
            out.i16(code);
            (0..3).for_each(|_| out.i64(-1));
            out.array(usize::from(code != 0));
            if code != 0 {
                out.i32(0);
                out.nullable_text(reason);
                out.no_tags();
            }
            out.nullable_text(None);
            out.no_tags();
        }
        out.no_tags();
        let mut seen = Vec::new();
        produce_answer(Reader::new(&out.0), |produced| seen.push(produced)).expect("well formed");
        let of = |partition, code, reason| Produced {
            topic: "topic",
            partition,
            code,
            reason,
        };
        assert_eq!(
            seen,
            [of(0, BrokerCode::NONE, None), of(1, BrokerCode(87), Some("no key"))]
        );
    }

    #[test]
    fn an_identity_comes_with_success_only() {
        let answer = |code: i16, id: i64, epoch: i16| {
            let mut out = Writer::default();
            out.i32(0);
            out.i16(code);
            out.i64(id);
            out.i16(epoch);
            out.no_tags();
            identity_answer(Reader::new(&out.0))
        };
        assert_eq!(answer(0, 9, 4), Ok(Ok(Identity { id: 9, epoch: 4 })));
        assert_eq!(answer(90, -1, -1), Ok(Err(BrokerCode::PRODUCER_FENCED)));
        assert!(answer(0, -1, -1).is_err(), "success without an identity is none");
    }
}
