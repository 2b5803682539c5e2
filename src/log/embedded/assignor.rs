//! Who gets which partitions: as balanced as the subscriptions allow, and otherwise as before.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::TopicPartition;

/// What a member brings to a rebalance.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim {
    /// Every partition that the member may get.
    pub subscribed: BTreeSet<TopicPartition>,
    /// What the member has now.
    pub owned: BTreeSet<TopicPartition>,
}

/// Shares out all partitions among the members that subscribe to them.
///
/// Members keep what they have, as long as nobody else has two partitions fewer. Equal input gives equal output.
pub(super) fn assign(claims: &BTreeMap<String, Claim>) -> BTreeMap<String, BTreeSet<TopicPartition>> {
    let mut shares = keep_owned(claims);
    let taken: BTreeSet<_> = shares.values().flatten().cloned().collect();
    let all: BTreeSet<_> = claims.values().flat_map(|claim| claim.subscribed.iter()).collect();
    for partition in all {
        if !taken.contains(partition)
            && let Some(member) = least_loaded(claims, &shares, partition)
        {
            shares.entry(member).or_default().insert(partition.clone());
        }
    }
    while let Some((from, to, partition)) = find_move(claims, &shares) {
        shares.entry(from).or_default().remove(&partition);
        shares.entry(to).or_default().insert(partition);
    }
    shares
}

fn keep_owned(claims: &BTreeMap<String, Claim>) -> BTreeMap<String, BTreeSet<TopicPartition>> {
    let kept = |claim: &Claim| claim.owned.intersection(&claim.subscribed).cloned().collect();
    claims
        .iter()
        .map(|(member, claim)| (member.clone(), kept(claim)))
        .collect()
}

/// The subscriber with the smallest share; the first by name among equals.
fn least_loaded(
    claims: &BTreeMap<String, Claim>,
    shares: &BTreeMap<String, BTreeSet<TopicPartition>>,
    partition: &TopicPartition,
) -> Option<String> {
    let subscribers = shares
        .iter()
        .filter(|(member, _)| claims[*member].subscribed.contains(partition));
    let least = subscribers.min_by_key(|(_, share)| share.len());
    least.map(|(member, _)| member.clone())
}

/// A partition whose move brings two shares closer together.
fn find_move(
    claims: &BTreeMap<String, Claim>,
    shares: &BTreeMap<String, BTreeSet<TopicPartition>>,
) -> Option<(String, String, TopicPartition)> {
    let mut donors: Vec<_> = shares.iter().collect();
    donors.sort_by_key(|(_, share)| std::cmp::Reverse(share.len()));
    let smallest = donors.last().map_or(0, |(_, share)| share.len());
    for (donor, share) in donors {
        if share.len() < smallest + 2 {
            break;
        }
        for partition in share.iter().rev() {
            if let Some(member) = least_loaded(claims, shares, partition)
                && shares[&member].len() + 2 <= share.len()
            {
                return Some((donor.clone(), member, partition.clone()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn partitions(topic: &str, numbers: impl IntoIterator<Item = i32>) -> BTreeSet<TopicPartition> {
        numbers
            .into_iter()
            .map(|number| TopicPartition::new(topic, number))
            .collect()
    }

    fn claim(subscribed: BTreeSet<TopicPartition>, owned: BTreeSet<TopicPartition>) -> Claim {
        Claim { subscribed, owned }
    }

    #[test]
    fn a_newcomer_gets_its_part_and_nothing_else_moves() {
        let all = partitions("t", 0..6);
        let claims = BTreeMap::from([
            ("a".to_owned(), claim(all.clone(), partitions("t", 0..3))),
            ("b".to_owned(), claim(all.clone(), partitions("t", 3..6))),
            ("c".to_owned(), claim(all, BTreeSet::new())),
        ]);
        let shares = assign(&claims);
        assert_eq!(shares["a"], partitions("t", 0..2));
        assert_eq!(shares["b"], partitions("t", 3..5));
        assert_eq!(shares["c"], partitions("t", [2, 5]));
    }

    #[test]
    fn a_partition_goes_only_to_those_who_subscribe_to_it() {
        let old = partitions("old", 0..4);
        let both: BTreeSet<_> = old.union(&partitions("new", 0..2)).cloned().collect();
        let claims = BTreeMap::from([
            ("a".to_owned(), claim(old.clone(), old.clone())),
            ("b".to_owned(), claim(both, BTreeSet::new())),
        ]);
        let shares = assign(&claims);
        assert!(partitions("new", 0..2).is_subset(&shares["b"]));
        assert_eq!(shares["a"].len(), 3);
        assert_eq!(shares["b"].len(), 3);
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_and_shares_differ_by_one_at_most(
            count in 0..40i32,
            owners in prop::collection::vec(0..7usize, 40),
            members in 1..6usize,
        ) {
            let all = partitions("t", 0..count);
            let claims: BTreeMap<_, _> = (0..members)
                .map(|member| {
                    let owned = partitions("t", (0..count).filter(|number| owners[*number as usize] == member));
                    (format!("m{member}"), claim(all.clone(), owned))
                })
                .collect();
            let shares = assign(&claims);
            let given: Vec<_> = shares.values().flatten().cloned().collect();
            prop_assert_eq!(given.len(), all.len());
            prop_assert_eq!(given.into_iter().collect::<BTreeSet<_>>(), all);
            let sizes: Vec<_> = shares.values().map(BTreeSet::len).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            for (member, claim) in &claims {
                // Nobody loses a partition while staying below the largest share.
                let kept = shares[member].intersection(&claim.owned).count();
                prop_assert!(kept == claim.owned.len() || shares[member].is_subset(&claim.owned));
            }
        }
    }
}
