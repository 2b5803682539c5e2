//! The progress bar of a restore.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::observed::Restore;

/// Shows all restores of an instance as one bar while there are any.
pub struct RestoreBar {
    bars: MultiProgress,
    bar: Option<ProgressBar>,
}

impl RestoreBar {
    /// A bar that is drawn on `bars` once there is something to show.
    pub fn new(bars: MultiProgress) -> Self {
        Self { bars, bar: None }
    }

    /// Shows how things stand.
    pub fn update(&mut self, restores: &[Restore]) {
        if restores.is_empty() {
            if let Some(bar) = self.bar.take() {
                bar.finish_and_clear();
            }
            return;
        }
        let (restored, target) = totals(restores);
        let bar = self
            .bar
            .get_or_insert_with(|| self.bars.add(ProgressBar::no_length().with_style(style())));
        bar.set_length(target);
        bar.set_position(restored);
        bar.set_message(format!("restoring {} tasks", restores.len()));
    }
}

fn totals(restores: &[Restore]) -> (u64, u64) {
    let sum = |part: fn(&Restore) -> u64| restores.iter().map(part).fold(0_u64, u64::saturating_add);
    (
        sum(|restore| restore.restored.min(restore.target)),
        sum(|restore| restore.target),
    )
}

const TEMPLATE: &str = "{msg} [{bar:40}] {human_pos}/{human_len} ({percent} %), {per_sec}, {eta} left";

fn style() -> ProgressStyle {
    ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressDrawTarget;

    use super::*;
    use crate::ids::TaskId;

    fn restore(partition: i32, restored: u64, target: u64) -> Restore {
        Restore {
            task: TaskId {
                sub_topology: 0,
                partition,
            },
            restored,
            target,
        }
    }

    #[test]
    fn the_bar_sums_over_tasks_and_goes_away_when_all_are_restored() {
        let mut bar = RestoreBar::new(MultiProgress::with_draw_target(ProgressDrawTarget::hidden()));
        let shown = |bar: &RestoreBar| {
            bar.bar
                .as_ref()
                .map(|bar| (bar.message(), bar.position(), bar.length()))
        };
        bar.update(&[]);
        assert_eq!(shown(&bar), None);
        bar.update(&[restore(0, 1_000, 4_000), restore(1, 9_999, 1_000)]);
        assert_eq!(shown(&bar), Some(("restoring 2 tasks".to_owned(), 2_000, Some(5_000))));
        bar.update(&[]);
        assert_eq!(shown(&bar), None);
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
