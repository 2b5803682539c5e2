"""The two measurements: throughput on a filled topic, and latency at a steady rate."""

import json
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass

from . import processes, profile
from .engines import Job, RunningEngine

_SAMPLE_INTERVAL_S = 0.1
_PARTITIONS = 4


@dataclass(frozen=True)
class Scale:
    """How much work a run is."""

    records: int
    distinct: int
    throughput_runs: int
    latency_runs: int
    latency_seconds: int
    warm_up_seconds: int
    rate: int = 1_000
    run_limit_s: int = 600


class Bench:
    """Everything that the measurements share."""

    def __init__(self, broker, jars, classes, work, scale):
        self.broker = broker
        self.scale = scale
        self._tool = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
        self._tool += ["-cp", f"{classes}:{jars}/*"]
        self._work = work
        self._runs = 0

    def prefill(self):
        """Fills the input topic of the throughput runs; answers its name."""
        topic = "bench-input"
        self.broker.create_topic(topic, _PARTITIONS)
        options = {"topic": topic, "records": self.scale.records, "distinct": self.scale.distinct}
        subprocess.run(self._java("Prefill", options), check=True)
        return topic

    def throughput(self, engine, workload, topic):
        """One engine works a filled topic off, from nothing to the last record."""
        job = self._job(engine, workload, topic, commit_ms=100)
        records = self.broker.ends(topic)
        busy_before, broker_before = processes.host_busy_seconds(), processes.cpu_seconds(self.broker.pid)
        with self._start(engine, job) as running:
            samples = self._drain(running, job, records)
            engine_rss, broker_rss = processes.peak_rss_bytes(running.pid), processes.peak_rss_bytes(self.broker.pid)
        busy = processes.host_busy_seconds() - busy_before
        outputs = self.broker.ends(job.output)
        if outputs < records:
            raise RuntimeError(f"{engine.name} put out {outputs} records for {records} inputs; every update must be emitted")
        self._clean(job)
        first, last = samples[0], samples[-1]
        # Until a tenth of the work is done engines warm up; the rest is the steady part.
        steady = next(sample for sample in samples if sample.committed >= records * 0.1)
        return {
            "measurement": "throughput",
            "engine": engine.name,
            "workload": workload,
            "records": records,
            "seconds": last.at - first.at,
            "records_per_second": _ratio(last.committed - steady.committed, last.at - steady.at),
            "engine_us": _ratio((last.engine_cpu - steady.engine_cpu) * 1e6, last.committed - steady.committed),
            "broker_us": _ratio((last.broker_cpu - steady.broker_cpu) * 1e6, last.committed - steady.committed),
            "engine_us_whole_life": last.engine_cpu * 1e6 / records,
            "engine_rss_bytes": engine_rss,
            "broker_rss_bytes": broker_rss,
            "other_cpu_seconds": busy - last.engine_cpu - (last.broker_cpu - broker_before),
        }

    def profile(self, engine, topic, data):
        """One engine counts a filled topic while perf samples it from a tenth of the work on; answers what was done."""
        job = self._job(engine, "count", topic, commit_ms=100)
        records = self.broker.ends(topic)
        with self._start(engine, job) as running:
            self._drain(running, job, records // 10)
            sampler = profile.record(running.pid, data)
            samples = self._drain(running, job, records)
            processes.stop(sampler)
        self._clean(job)
        first, last = samples[0], samples[-1]
        rate = _ratio(last.committed - first.committed, last.at - first.at)
        cost = _ratio((last.engine_cpu - first.engine_cpu) * 1e6, last.committed - first.committed)
        return f"{engine.name}, count, {rate:,.0f} records/s, {cost:.2f} µs of CPU per record while sampled."

    def latency(self, engine, commit_ms):
        """One engine counts at a steady rate while a consumer measures the age of its output."""
        scale = self.scale
        source = self._next_name(engine) + "-in"
        self.broker.create_topic(source, _PARTITIONS)
        job = self._job(engine, "count", source, commit_ms)
        seconds = scale.latency_seconds + scale.warm_up_seconds
        options = {"input": source, "output": job.output, "rate": scale.rate, "seconds": seconds}
        options |= {"skip": scale.warm_up_seconds, "distinct": scale.distinct}
        with self._start(engine, job) as running:
            running.wait_until_running()
            load = subprocess.Popen(self._java("Latency", options), stdout=subprocess.PIPE, text=True)
            time.sleep(scale.warm_up_seconds)
            cpu, began = processes.cpu_seconds(running.pid), time.monotonic()
            answer, _ = load.communicate(timeout=scale.run_limit_s)
            cpu, elapsed = processes.cpu_seconds(running.pid) - cpu, time.monotonic() - began
            rss = processes.peak_rss_bytes(running.pid)
        result = json.loads(answer)
        if result["received"] != result["sent"]:
            raise RuntimeError(f"{engine.name} put out {result['received']} records for {result['sent']} inputs")
        self._clean(job)
        self.broker.delete_topics(source)
        return {
            "measurement": "latency",
            "engine": engine.name,
            "commit_ms": commit_ms,
            "rate": scale.rate,
            **{name: value for name, value in result.items() if name != "event"},
            "engine_cores": cpu / elapsed,
            "engine_rss_bytes": rss,
        }

    def _drain(self, running, job, records):
        samples = []
        began = time.monotonic()
        while not samples or samples[-1].committed < records:
            running.check()
            if time.monotonic() - began > self.scale.run_limit_s:
                raise TimeoutError(f"{job.app_id} did not finish within {self.scale.run_limit_s} s")
            time.sleep(_SAMPLE_INTERVAL_S if samples else 0)
            committed = self.broker.committed(job.app_id, job.input)
            engine_cpu, broker_cpu = processes.cpu_seconds(running.pid), processes.cpu_seconds(self.broker.pid)
            samples.append(_Sample(time.monotonic(), committed, engine_cpu, broker_cpu))
        return samples

    def _start(self, engine, job):
        return RunningEngine(engine, job, self.broker, self._work)

    def _next_name(self, engine):
        self._runs += 1
        return f"bench-{self._runs}-{engine.name.split()[0].lower()}"

    def _job(self, engine, workload, source, commit_ms):
        app_id = f"{self._next_name(engine)}-{workload}"
        output = f"{app_id}-out"
        self.broker.create_topic(output, _PARTITIONS)
        return Job(app_id, workload, source, output, commit_ms)

    def _clean(self, job):
        self.broker.delete_topics(job.app_id)
        shutil.rmtree(f"{self._work}/state/{job.app_id}", ignore_errors=True)

    def _java(self, tool, options):
        words = (word for name, value in options.items() for word in (f"--{name}", str(value)))
        return [*self._tool, f"dev.tidegate.bench.{tool}", "--bootstrap", self.broker.bootstrap, *words]


@dataclass(frozen=True)
class _Sample:
    at: float
    committed: int
    engine_cpu: float
    broker_cpu: float


def _ratio(amount, per):
    return amount / per if per else float("nan")


def scale_as_dict(scale):
    """The scale for the record of a run."""
    return asdict(scale)
