//! Pages of figures, and whether targets are met.

use std::fmt::Write;
use std::path::Path;

use crate::Failure;
use crate::machine;

/// A page that grows; what it says is printed in the end, too.
#[derive(Default)]
pub struct Page {
    targets: String,
    body: String,
    is_missed: bool,
}

impl Page {
    /// Adds a target: what was reached, what was wanted, and whether that will do.
    pub fn target(&mut self, what: &str, reached: &str, wanted: &str, is_met: bool) {
        let verdict = if is_met { "met" } else { "**missed**" };
        self.is_missed |= !is_met;
        let _ = writeln!(self.targets, "| {what} | {reached} | {wanted} | {verdict} |"); // A string takes everything.
    }

    /// Adds a heading.
    pub fn heading(&mut self, text: &str) {
        let _ = write!(self.body, "\n## {text}\n\n");
    }

    /// Adds a paragraph or rows of a table.
    pub fn lines(&mut self, text: &str) {
        self.body.push_str(text.trim_end());
        self.body.push('\n');
    }

    /// Whether a target was missed.
    pub fn is_missed(&self) -> bool {
        self.is_missed
    }

    /// Writes the page to `file` and prints it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, title: &str, command: &str, work: &str, file: Option<&Path>) -> Result<(), Failure> {
        let page = format!(
            "# {title}\n\nWritten by `{command}`.\n\nMachine: {}. Load average at the end: {}.\n\n{work}\n\n## Targets\n\n| | reached | target | |\n|---|---|---|---|\n{}{}",
            machine::describe(),
            machine::load(),
            self.targets,
            self.body,
        );
        if let Some(file) = file {
            std::fs::write(file, &page)?;
        }
        println!("{page}");
        Ok(())
    }
}

/// The command that was given, for pages: the make target and the variables that are set.
pub fn command(target: &str, variables: &[&str]) -> String {
    let mut command = format!("make {target}");
    for variable in variables {
        if let Ok(value) = std::env::var(variable) {
            let _ = write!(command, " {variable}={value}");
        }
    }
    command
}

/// The median of what was measured.
pub fn median(figures: &[f64]) -> f64 {
    quantile(figures, 0.5)
}

/// The figure below which this share of all figures lies.
pub fn quantile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Offset and slope of the line through points, by least squares.
pub fn line_through(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let (x_sum, y_sum) = points
        .iter()
        .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x_mean, y_mean) = (x_sum / count, y_sum / count);
    let covariance: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let slope = if variance > 0.0 { covariance / variance } else { 0.0 };
    (y_mean - slope * x_mean, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_lines_are_those_of_the_book() {
        let figures: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((median(&figures), quantile(&figures, 0.99)), (50.0, 99.0));
        let (offset, slope) = line_through(&[(1.0, 3.0), (2.0, 5.0), (3.0, 7.0)]);
        assert!((offset - 1.0).abs() < 1e-9 && (slope - 2.0).abs() < 1e-9);
    }
}
