//! The results as tables for people.

use tidegate::time::Millis;
use tidegate_topologies::flights::{CarrierTotals, Departures, ManufacturerFlights, Results};

/// Rows that are shown of a long table.
const TOP_ROWS: usize = 10;
const HOUR_MS: Millis = 3_600_000;
const DAY_MS: Millis = 24 * HOUR_MS;

/// The three results, one table each.
pub fn tables(results: &Results) -> String {
    [
        departures(&results.departures),
        carriers(results.carriers.values()),
        manufacturers(results.manufacturers.values()),
    ]
    .join("\n")
}

/// The hours with the most minutes of delay.
fn departures(hours: &[Departures]) -> String {
    let mut worst: Vec<&Departures> = hours.iter().collect();
    worst.sort_by_key(|hour| (-hour.sum_dep_delay, hour.window_start_ms, hour.origin.clone()));
    let rows = worst.iter().take(TOP_ROWS).map(|hour| {
        [
            hour.origin.clone(),
            utc_hour(hour.window_start_ms),
            hour.count.to_string(),
            mean(hour.sum_dep_delay, hour.count),
            hour.max_dep_delay.to_string(),
        ]
    });
    let title = format!(
        "Departures per airport and hour: {} hours, the worst of them",
        hours.len()
    );
    let header = ["origin", "hour (UTC)", "flights", "mean delay/min", "max delay/min"];
    table(&title, header, rows.collect())
}

fn carriers<'a>(carriers: impl Iterator<Item = &'a CarrierTotals>) -> String {
    let mut largest: Vec<&CarrierTotals> = carriers.collect();
    largest.sort_by_key(|totals| (std::cmp::Reverse(totals.flights), totals.carrier.clone()));
    let rows = largest.iter().take(TOP_ROWS).map(|totals| {
        [
            totals.carrier.clone(),
            totals.flights.to_string(),
            totals.cancelled.to_string(),
            totals.sum_arr_delay.to_string(),
        ]
    });
    let title = format!("Carriers: {}, those with most flights", largest.len());
    let header = ["carrier", "flights", "cancelled", "arrival delays/min"];
    table(&title, header, rows.collect())
}

fn manufacturers<'a>(counts: impl Iterator<Item = &'a ManufacturerFlights>) -> String {
    let mut largest: Vec<&ManufacturerFlights> = counts.collect();
    largest.sort_by_key(|count| (std::cmp::Reverse(count.flights), count.manufacturer.clone()));
    let rows = largest
        .iter()
        .take(TOP_ROWS)
        .map(|count| [count.manufacturer.clone(), count.flights.to_string()]);
    let title = format!("Manufacturers: {}, those with most flights", largest.len());
    table(&title, ["manufacturer", "flights"], rows.collect())
}

/// Columns as wide as their longest cell; the first to the left, the others to the right.
fn table<const N: usize>(title: &str, header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(rows);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = format!("{title}\n");
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            match column {
                0 => text.push_str(&format!("  {cell:<width$}")),
                _ => text.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// A mean with one digit after the point.
fn mean(sum: i64, count: u64) -> String {
    format!("{:.1}", sum as f64 / count.max(1) as f64)
}

/// A time as `2013-01-09 14:00`.
fn utc_hour(time_ms: Millis) -> String {
    let mut days = time_ms.div_euclid(DAY_MS);
    let hour = time_ms.rem_euclid(DAY_MS) / HOUR_MS;
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02} {hour:02}:00", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_shown_as_dates() {
        assert_eq!(utc_hour(0), "1970-01-01 00:00");
        assert_eq!(utc_hour(1_357_034_400_000), "2013-01-01 10:00");
        assert_eq!(utc_hour(1_388_530_800_000), "2013-12-31 23:00");
        assert_eq!(utc_hour(1_709_247_600_000), "2024-02-29 23:00");
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![
            ["A".to_owned(), "1".to_owned()],
            ["LONG".to_owned(), "100000".to_owned()],
        ];
        let shown = table("Title", ["key", "count"], rows);
        assert_eq!(shown, "Title\n  key    count\n  A          1\n  LONG  100000\n");
    }
}
