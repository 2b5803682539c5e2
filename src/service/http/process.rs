//! What the system says of this process, under the names that Prometheus' own clients use.

use crate::metrics::{Sample, Source, Value};

/// Metrics of the process from `/proc`; none where the system has no such directory.
pub struct Process;

/// Ticks per second of the times in `/proc/self/stat`: part of Linux' interface to programs, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

impl Source for Process {
    fn samples(&self, out: &mut Vec<Sample>) {
        let mut gauge = |name, help, value: Option<f64>| {
            out.extend(value.map(|value| Sample {
                name,
                help,
                labels: Vec::new(),
                value: Value::Gauge(value),
            }));
        };
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let bytes = |field| status_bytes(&status, field);
        gauge(
            "process_resident_memory_bytes",
            "Memory in use, in bytes.",
            bytes("VmRSS:"),
        );
        gauge(
            "process_resident_memory_peak_bytes",
            "Most memory ever in use, in bytes.",
            bytes("VmHWM:"),
        );
        gauge(
            "process_virtual_memory_bytes",
            "Size of the address space, in bytes.",
            bytes("VmSize:"),
        );
        gauge("process_threads", "Number of threads.", stat_field(&stat, 20));
        let open_files = std::fs::read_dir("/proc/self/fd")
            .ok()
            .map(|entries| entries.count() as f64);
        gauge("process_open_fds", "Number of open files and connections.", open_files);
        // A counter in fractions of seconds, which the port's counters cannot hold; the exposition knows the name.
        let cpu_seconds = stat_field(&stat, 14)
            .zip(stat_field(&stat, 15))
            .map(|(user, system)| (user + system) / TICKS_PER_SECOND);
        gauge(
            CPU_SECONDS,
            "Processor time of user and system, in seconds.",
            cpu_seconds,
        );
    }
}

/// The one metric that is a counter although its value has a fraction.
pub const CPU_SECONDS: &str = "process_cpu_seconds_total";

/// A field of `/proc/self/status` that is given in kB.
fn status_bytes(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<f64>()
        .ok()
        .map(|kilobytes| kilobytes * 1024.0)
}

/// Field number `number` of `/proc/self/stat`, counted from 1 as in proc(5). The second is the program's name in brackets, which may contain anything.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_even_behind_an_odd_program_name() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 7 0 12345 1000 200";
        assert_eq!(stat_field(stat, 14), Some(150.0));
        assert_eq!(stat_field(stat, 15), Some(50.0));
        assert_eq!(stat_field(stat, 20), Some(7.0));
        assert_eq!(
            status_bytes("Name:\tx\nVmRSS:\t    2048 kB\n", "VmRSS:"),
            Some(2_097_152.0)
        );
        assert_eq!(status_bytes("Name:\tx\n", "VmRSS:"), None);
        assert_eq!(stat_field("", 14), None);
    }
}
