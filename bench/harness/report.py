"""RESULTS.md: the machine, the tables, the ratios, and whether the targets are met."""

import os
import platform
import statistics
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Target:
    """A figure that has to be reached."""

    text: str
    reached: float
    limit: float
    at_least: bool

    @property
    def is_met(self):
        """Whether the figure is on the right side of its limit; a figure that is not a number is not."""
        return self.reached >= self.limit if self.at_least else self.reached <= self.limit


class Results:
    """All runs of one benchmark."""

    def __init__(self, runs, ours, theirs):
        self._runs = runs
        self._ours = ours
        self._theirs = theirs

    def median(self, engine, field, **selection):
        """The median of a field over the runs of an engine that match a selection."""
        selection["engine"] = engine
        matching = [run for run in self._runs if all(run.get(name) == value for name, value in selection.items())]
        return statistics.median(run[field] for run in matching)

    def targets(self):
        """What this version promises beside Kafka Streams at its best setting."""
        targets = [
            self._ratio_target("records per CPU second of the engine, count", "engine_us", 2.5, inverse=True, workload="count"),
            self._ratio_target("records per second, count", "records_per_second", 2.0, workload="count"),
            self._ratio_target("peak RSS, count", "engine_rss_bytes", 0.25, at_least=False, workload="count"),
        ]
        for commit_ms in self._commit_intervals():
            text = f"p99 latency, commit interval {commit_ms} ms"
            targets.append(self._ratio_target(text, "p99_ms", 1.0, at_least=False, commit_ms=commit_ms))
        return targets

    def _ratio_target(self, text, field, limit, at_least=True, inverse=False, **selection):
        ours = self.median(self._ours, field, **selection)
        theirs = self.median(self._theirs, field, **selection)
        reached = theirs / ours if inverse else ours / theirs
        return Target(text, reached, limit, at_least)

    def _commit_intervals(self):
        return sorted({run["commit_ms"] for run in self._runs if run["measurement"] == "latency"}, reverse=True)

    def markdown(self, scale, command):
        """The whole page."""
        lines = ["# Results", "", f"Written by `{command}`.", "", *self._machine(), "", *self._work(scale), ""]
        lines += ["## Targets", "", *self._target_table(), ""]
        lines += ["## Throughput", "", *self._throughput_table(), "", "## Latency", "", *self._latency_table(), ""]
        lines += ["## Every run", "", *self._every_run(), ""]
        return "\n".join(lines)

    def _machine(self):
        with open("/proc/meminfo", encoding="ascii") as file:
            memory = int(file.readline().split()[1]) / MIB
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        model = models[0] if models else platform.machine()
        return [f"Machine: {os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}; broker and engine share it."]

    def _work(self, scale):
        return [
            f"Work: {scale.records:,} records, {scale.distinct:,} distinct keys, 16-byte keys, 100-byte values, 4 partitions, lz4.",
            "Both engines: exactly-once, one thread, every update emitted, commit interval 100 ms unless said otherwise.",
            f"{self._theirs}: `--cache-bytes 0`, `-Xmx2g -XX:+UseParallelGC`. Runs are interleaved; tables show medians.",
        ]

    def _target_table(self):
        lines = ["| beside " + self._theirs + " | reached | target | |", "|---|---|---|---|"]
        for target in self.targets():
            sign = "≥" if target.at_least else "≤"
            verdict = "met" if target.is_met else "**missed**"
            lines.append(f"| {target.text} | {target.reached:.2f} × | {sign} {target.limit:g} × | {verdict} |")
        return lines

    def _throughput_table(self):
        lines = [
            "| workload | engine | records/s | engine µs/record (whole life) | broker µs/record | engine peak RSS MiB | runs |",
            "|---|---|---|---|---|---|---|",
        ]
        for workload in ("count", "pass"):
            for engine in (self._ours, self._theirs):
                runs = [r for r in self._runs if r["engine"] == engine and r.get("workload") == workload]
                median = lambda field, engine=engine, workload=workload: self.median(engine, field, workload=workload)
                lines.append(
                    f"| {workload} | {engine} | {median('records_per_second'):,.0f} "
                    f"| {median('engine_us'):.2f} ({median('engine_us_whole_life'):.2f}) | {median('broker_us'):.2f} "
                    f"| {median('engine_rss_bytes') / MIB:.0f} | {len(runs)} |"
                )
        return lines + ["", "Without “whole life”: from a tenth of the records to the last, so that start and warm-up do not count."]

    def _latency_table(self):
        lines = [
            "| commit interval | engine | p50 ms | p99 ms | p99.9 ms | most ms | engine cores | engine peak RSS MiB |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for commit_ms in self._commit_intervals():
            for engine in (self._ours, self._theirs):
                median = lambda field, engine=engine, commit_ms=commit_ms: self.median(engine, field, commit_ms=commit_ms)
                lines.append(
                    f"| {commit_ms} ms | {engine} | {median('p50_ms'):g} | {median('p99_ms'):g} | {median('p999_ms'):g} "
                    f"| {median('max_ms'):g} | {median('engine_cores'):.2f} | {median('engine_rss_bytes') / MIB:.0f} |"
                )
        rate = next(run["rate"] for run in self._runs if run["measurement"] == "latency")
        return lines + ["", f"At {rate:,} records/s, from the moment a record was due to its output at a read_committed consumer."]

    def _every_run(self):
        lines = ["| | engine | figure | engine µs/record or cores | CPU s of other processes |", "|---|---|---|---|---|"]
        for run in self._runs:
            if run["measurement"] == "throughput":
                figures = f"{run['records_per_second']:,.0f} records/s | {run['engine_us']:.2f} µs | {run['other_cpu_seconds']:.1f}"
                lines.append(f"| {run['workload']} | {run['engine']} | {figures} |")
            else:
                figures = f"p50 {run['p50_ms']} p99 {run['p99_ms']} p99.9 {run['p999_ms']} ms | {run['engine_cores']:.2f} cores | – |"
                lines.append(f"| latency, {run['commit_ms']} ms | {run['engine']} | {figures}")
        return lines
