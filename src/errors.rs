//! What all errors of Tidegate have in common: a stable code with a page in `docs/errors/`.

/// An error with a stable code. Each code has a page `docs/errors/<code>.md`; a test keeps them in step.
pub trait Coded: std::error::Error {
    /// The stable code, for example `TG1001`. The first digit is the module's group: 0 codecs, 1 log and state, 2 topology, 3 durability, 4 workers and instances, 5 service.
    fn code(&self) -> &'static str;
}

/// The candidate most like `name`, for "did you mean"; `None` where nothing is near enough to be meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR_ENOUGH: f64 = 0.6;
    let likeness = |candidate: &str| strsim::normalized_damerau_levenshtein(name, candidate);
    candidates
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= NEAR_ENOUGH)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Whether the value of something called `name` is probably secret, so that no message may contain it. For names that
/// users choose; an option of our own says so itself.
pub fn sounds_secret(name: &str) -> bool {
    const TELLING: [&str; 5] = ["password", "secret", "jaas", "ssl.key.pem", "oauthbearer.config"];
    let name = name.to_ascii_lowercase();
    TELLING.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_nonsense_is_not_guessed_at() {
        let names = ["interval", "bootstrap_servers", "address"];
        assert_eq!(nearest("intervall", names), Some("interval"));
        assert_eq!(nearest("bootstrap_server", names), Some("bootstrap_servers"));
        assert_eq!(nearest("xyz", names), None);
    }
}
