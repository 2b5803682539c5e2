//! What stands at the beginning of a connection: what the broker speaks, and who the client is.

use super::super::codes::BrokerCode;
use super::super::wire::{Malformed, Reader, Writer};
use super::{Api, END_TXN, FIND_COORDINATOR, INIT_PRODUCER_ID, METADATA, PRODUCE, TXN_OFFSET_COMMIT};

/// What a broker must speak.
const NEEDED: [Api; 6] = [
    PRODUCE,
    METADATA,
    FIND_COORDINATOR,
    INIT_PRODUCER_ID,
    END_TXN,
    TXN_OFFSET_COMMIT,
];

/// The feature that says which transaction protocol the cluster has finalised, and the level that is needed.
const TRANSACTION_FEATURE: &str = "transaction.version";
const TRANSACTION_LEVEL: i16 = 2;

pub(in super::super) fn api_versions(out: &mut Writer) {
    out.text("tidegate");
    out.text(env!("CARGO_PKG_VERSION"));
    out.no_tags();
}

/// Why a broker is not one that this producer can work with; `None` where it is.
pub(in super::super) fn api_versions_answer(mut answer: Reader<'_>) -> Result<Option<String>, Malformed> {
    let code = BrokerCode(answer.i16()?);
    if code == BrokerCode::UNSUPPORTED_VERSION {
        return Ok(Some("it is older than Kafka 2.4".to_owned()));
    }
    if !code.is_success() {
        return Ok(Some(format!("it does not say what it speaks: {code}")));
    }
    let mut missing = NEEDED.to_vec();
    for _ in 0..answer.array()? {
        let (key, min, max) = (answer.i16()?, answer.i16()?, answer.i16()?);
        answer.skip_tags()?;
        missing.retain(|api| api.key != key || !(min..=max).contains(&api.version));
    }
    answer.i32()?;
    let mut level = 0;
    answer.tags(|tag, mut field| {
        // Tag 2 has the finalised features.
        if tag == 2 {
            for _ in 0..field.array()? {
                let name = field.text()?;
                let max = field.i16()?;
                field.i16()?;
                field.skip_tags()?;
                if name == TRANSACTION_FEATURE {
                    level = max;
                }
            }
        }
        Ok(())
    })?;
    if let Some(api) = missing.first() {
        return Ok(Some(format!(
            "it does not speak version {} of {}",
            api.version, api.name
        )));
    }
    let too_low = level < TRANSACTION_LEVEL;
    Ok(too_low.then(|| format!("its feature {TRANSACTION_FEATURE} is {level}, and has to be {TRANSACTION_LEVEL}")))
}

pub(in super::super) fn sasl_handshake(out: &mut Writer, mechanism: &str) {
    out.old_text(mechanism);
}

/// The mechanisms that the broker has, where it has not the one that was asked for.
pub(in super::super) fn sasl_handshake_answer(mut answer: Reader<'_>) -> Result<Option<String>, Malformed> {
    let code = BrokerCode(answer.i16()?);
    let mut mechanisms = Vec::new();
    for _ in 0..answer.old_array()? {
        mechanisms.push(answer.old_text()?);
    }
    Ok((!code.is_success()).then(|| mechanisms.join(", ")))
}

pub(in super::super) fn sasl_authenticate(out: &mut Writer, bytes: &[u8]) {
    out.bytes(bytes);
    out.no_tags();
}

/// What the broker says to that: bytes for the mechanism, or why it refuses.
pub(in super::super) fn sasl_authenticate_answer(mut answer: Reader<'_>) -> Result<Result<Vec<u8>, String>, Malformed> {
    let code = BrokerCode(answer.i16()?);
    let reason = answer.nullable_text()?;
    let bytes = answer.bytes()?;
    match code.is_success() {
        true => Ok(Ok(bytes.to_vec())),
        false => Ok(Err(reason.map_or_else(|| code.to_string(), str::to_owned))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer about what a broker speaks, that lacks nothing but what a test takes away.
    fn versions(without: i16, level: i16) -> Vec<u8> {
        let mut out = Writer::default();
        out.i16(0);
        let apis: Vec<_> = NEEDED.iter().filter(|api| api.key != without).collect();
        out.array(apis.len());
        for api in apis {
            out.i16(api.key);
            out.i16(0);
            out.i16(api.version + 1);
            out.no_tags();
        }
        out.i32(0);
        let mut features = Writer::default();
        features.array(2);
        for (name, level) in [("group.version", 1), (TRANSACTION_FEATURE, level)] {
            features.text(name);
            features.i16(level);
            features.i16(0);
            features.no_tags();
        }
        out.varint(2);
        for (tag, field) in [(1, vec![0; 8]), (2, features.0)] {
            out.varint(tag);
            out.varint(field.len() as u32);
            out.0.extend_from_slice(&field);
        }
        out.0
    }

    #[test]
    fn a_broker_qualifies_by_what_it_speaks_and_by_the_protocol_that_is_finalised() {
        let asked = |without, level| api_versions_answer(Reader::new(&versions(without, level)));
        assert_eq!(asked(-1, 2), Ok(None));
        let lower = asked(-1, 1).expect("well formed").expect("a reason");
        assert!(lower.contains("transaction.version is 1"), "{lower}");
        let missing = asked(END_TXN.key, 2).expect("well formed").expect("a reason");
        assert!(missing.contains("version 5 of EndTxn"), "{missing}");
        let old = api_versions_answer(Reader::new(&35_i16.to_be_bytes()));
        assert!(old.expect("well formed").is_some());
        let cut = versions(-1, 2);
        assert!(api_versions_answer(Reader::new(&cut[..cut.len() - 3])).is_err());
    }
}
