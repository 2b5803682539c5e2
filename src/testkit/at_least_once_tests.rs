//! Applications whose epochs are no transactions.

use crate::durability::Durability;
use crate::instance::Guarantee;

use super::snapshot_tests::{cluster, count, counted, expected};

#[test]
fn a_disk_that_is_behind_is_brought_up_to_date_by_all_that_the_changelog_has_since() {
    let mut cluster = cluster(Durability::Changelog)
        .instances(2)
        .settings(|settings| settings.guarantee = Guarantee::AtLeastOnce);
    // Each chapter is several epochs: where markers were counted that are not there, the disk would be far ahead of the changelog.
    count(&mut cluster, 0..6);
    cluster.stop(1);
    count(&mut cluster, 6..7);
    cluster.stop(0);
    cluster.restart(1);
    cluster.settle();
    assert_eq!(counted(&mut cluster), expected(7));
}
