//! What the options of a producer mean here, and which of them this producer does not have.

use std::collections::BTreeMap;
use std::time::Duration;

use super::compression::Codec;
use super::queue::Limits;
use super::records::Parts;
use super::security::{Credentials, Mechanism, Security, TlsOptions};
use crate::log::kafka::KafkaSettings;

/// Bytes of batches in one request, at most, unless a single one has more.
const REQUEST_BYTES: usize = 4 << 20;

/// The default of librdkafka for the size of a batch, in bytes.
const BATCH_BYTES: usize = 1_000_000;

/// Options of the client that this producer has, too. librdkafka's names count, since users know them.
const KNOWN: [&str; 22] = [
    "batch.num.messages",
    "batch.size",
    "compression.codec",
    "compression.level",
    "compression.type",
    "enable.ssl.certificate.verification",
    "linger.ms",
    "message.max.bytes",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
];

/// A producer's options.
pub(super) struct Options {
    pub limits: Limits,
    pub codec: Codec,
    pub compression_level: Option<i32>,
    /// How long the answer to a request may take.
    pub request_timeout: Duration,
    pub transaction_timeout: Duration,
    /// Records that are larger as a batch are refused at once; `None` where compression makes the size unknown.
    record_max_bytes: Option<usize>,
}

/// The properties of a client, by name.
struct Properties(BTreeMap<String, String>);

impl Properties {
    fn text(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.0.get(*name)).map(String::as_str)
    }

    fn number<T: std::str::FromStr>(&self, names: &[&str], default: T) -> Result<T, String> {
        let Some(text) = self.text(names) else {
            return Ok(default);
        };
        text.parse()
            .map_err(|_| format!("{} = {text:?} is no number that it takes", names[0]))
    }

    /// A word of a few; the first of them is the default.
    fn word(&self, name: &str, words: &[&'static str]) -> Result<&'static str, String> {
        let Some(text) = self.text(&[name]) else {
            return Ok(words[0]);
        };
        let word = words.iter().find(|word| word.eq_ignore_ascii_case(text));
        word.copied().ok_or_else(|| format!("it has not {name} = {text:?}"))
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|text| !text.is_empty()).cloned()
    }
}

impl Options {
    /// # Errors
    /// Why this producer cannot have these settings.
    pub fn new(settings: &KafkaSettings, name: &str, id: &str) -> Result<(Self, Security), String> {
        for (section, properties) in [
            ("kafka.common", &settings.common),
            ("kafka.producer", &settings.producer),
        ] {
            if let Some(option) = properties.keys().find(|option| !KNOWN.contains(&option.as_str())) {
                return Err(format!("{section} has {option}, which only librdkafka knows"));
            }
        }
        let properties = Properties(settings.producer_properties(name, Some(id)));
        let codec = properties
            .text(&["compression.type", "compression.codec"])
            .unwrap_or("none");
        let codec = Codec::named(codec).ok_or_else(|| format!("it does not compress with {codec}"))?;
        let level = properties.number(&["compression.level"], -1)?;
        let milliseconds = |names: &[&str]| -> Result<Duration, String> {
            let number: f64 = properties.number(names, 0.0)?;
            Duration::try_from_secs_f64(number / 1000.0).map_err(|error| format!("{}: {error}", names[0]))
        };
        let message_max_bytes: usize = properties.number(&["message.max.bytes"], BATCH_BYTES)?;
        let batch_bytes = properties.number(&["batch.size"], BATCH_BYTES)?.min(message_max_bytes);
        let limits = Limits {
            records: properties.number(&["queue.buffering.max.messages"], settings.send_buffer_records)?,
            bytes: properties.number::<usize>(&["queue.buffering.max.kbytes"], settings.send_buffer_bytes / 1024)?
                * 1024,
            batch_bytes,
            batch_records: properties.number(&["batch.num.messages"], 10_000)?,
            request_bytes: REQUEST_BYTES,
            linger: milliseconds(&["linger.ms", "queue.buffering.max.ms"])?,
            delivery: settings.transaction_timeout,
        };
        let options = Self {
            limits,
            codec,
            compression_level: (level != -1).then_some(level),
            request_timeout: milliseconds(&["socket.timeout.ms"])?,
            transaction_timeout: settings.transaction_timeout,
            record_max_bytes: (codec == Codec::None).then_some(message_max_bytes),
        };
        Ok((options, security(&properties)?))
    }

    /// Whether a record is larger than any broker would take.
    pub fn refuses(&self, parts: &Parts<'_>) -> bool {
        // What cannot be too large is not measured.
        let may_be = |max: usize| parts.payload_bytes() + 128 > max || !parts.headers.as_slice().is_empty();
        self.record_max_bytes
            .is_some_and(|max| may_be(max) && parts.alone_bytes() > max)
    }
}

fn security(properties: &Properties) -> Result<Security, String> {
    let protocol = properties.word("security.protocol", &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"])?;
    let verifies = properties.word("ssl.endpoint.identification.algorithm", &["https", "none"])? == "https";
    let tls = TlsOptions {
        ca_file: properties.owned("ssl.ca.location"),
        certificate_file: properties.owned("ssl.certificate.location"),
        key_file: properties.owned("ssl.key.location"),
        key_password: properties.owned("ssl.key.password"),
        verifies_host: verifies,
        verifies_certificate: properties.word("enable.ssl.certificate.verification", &["true", "false"])? == "true",
    };
    let uses_sasl = matches!(protocol, "sasl_plaintext" | "sasl_ssl");
    let credentials = uses_sasl.then(|| -> Result<Credentials, String> {
        let name = properties
            .text(&["sasl.mechanism", "sasl.mechanisms"])
            .unwrap_or("GSSAPI");
        let mechanism = Mechanism::named(name).ok_or_else(|| format!("it has not the SASL mechanism {name}"))?;
        Ok(Credentials {
            mechanism,
            user: properties.owned("sasl.username").unwrap_or_default(),
            password: properties.owned("sasl.password").unwrap_or_default(),
        })
    });
    let uses_tls = matches!(protocol, "ssl" | "sasl_ssl");
    Security::new(uses_tls.then_some(&tls), credentials.transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Headers;

    fn options(common: &[(&str, &str)], producer: &[(&str, &str)]) -> Result<Options, String> {
        let mut settings = KafkaSettings::new("broker:9092");
        let owned = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        settings.common = owned(common);
        settings.producer = owned(producer);
        Options::new(&settings, "w", "app-0").map(|(options, _)| options)
    }

    #[test]
    fn options_mean_what_they_mean_to_the_library() {
        let shipped = options(&[], &[]).expect("the shipped settings");
        assert_eq!(shipped.limits.linger, Duration::from_millis(5));
        assert_eq!((shipped.limits.records, shipped.limits.bytes), (250_000, 64 << 20));
        assert_eq!(
            (shipped.limits.batch_records, shipped.limits.batch_bytes),
            (10_000, BATCH_BYTES)
        );
        assert_eq!(shipped.request_timeout, Duration::from_secs(30));
        let set = options(
            &[("socket.timeout.ms", "2000")],
            &[
                ("compression.type", "zstd"),
                ("compression.level", "3"),
                ("batch.size", "5000"),
            ],
        );
        let set = set.expect("it knows these");
        assert_eq!((set.codec, set.compression_level), (Codec::Zstd, Some(3)));
        assert_eq!(
            (set.limits.batch_bytes, set.request_timeout),
            (5_000, Duration::from_secs(2))
        );
    }

    #[test]
    fn what_only_the_library_has_is_said_and_never_left_out() {
        let reason = |common, producer| options(common, producer).err().expect("a reason");
        for (reason, named) in [
            (reason(&[("debug", "broker")], &[]), "debug"),
            (reason(&[], &[("compression.type", "snappy")]), "snappy"),
            (
                reason(
                    &[("security.protocol", "sasl_ssl"), ("sasl.mechanism", "OAUTHBEARER")],
                    &[],
                ),
                "OAUTHBEARER",
            ),
            (reason(&[("security.protocol", "sasl_plaintext")], &[]), "GSSAPI"),
            (
                reason(
                    &[("security.protocol", "ssl"), ("ssl.ca.location", "/no/such.pem")],
                    &[],
                ),
                "/no/such.pem",
            ),
        ] {
            assert!(reason.contains(named), "{reason}");
        }
    }

    #[test]
    fn a_record_is_too_large_by_the_batch_that_it_would_be() {
        let options = options(&[], &[("message.max.bytes", "10000")]).expect("it knows these");
        let headers = Headers::default();
        let value = vec![0; 10_000];
        let refused = |length: usize| {
            let parts = Parts {
                key: None,
                value: Some(&value[..length]),
                timestamp_ms: 0,
                headers: &headers,
            };
            (options.refuses(&parts), parts.alone_bytes())
        };
        let largest = (0..10_000)
            .rev()
            .find(|length| !refused(*length).0)
            .expect("small ones pass");
        assert_eq!(refused(largest).1, 10_000);
    }
}
