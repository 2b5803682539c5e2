//! In how many objects the small files of a base lie.

use std::collections::{BTreeMap, BTreeSet};

/// A base refers to at most so many objects of small files that were stored for bases before it.
const MAX_FORMER_OBJECTS: usize = 8;

/// Small files stay in the objects in which they are, as long as these are few. Else what is needed is stored anew of the objects of which least is
/// needed, in bytes: so their number is bounded, and since half as many stay as are allowed, what was moved is not moved again soon.
pub(super) fn to_be_merged(needed: BTreeMap<String, u64>) -> BTreeSet<String> {
    if needed.len() <= MAX_FORMER_OBJECTS {
        return BTreeSet::new();
    }
    let mut objects: Vec<(String, u64)> = needed.into_iter().collect();
    objects.sort_by_key(|(_, bytes)| *bytes);
    objects.truncate(objects.len() - MAX_FORMER_OBJECTS / 2);
    objects.into_iter().map(|(object, _)| object).collect()
}
