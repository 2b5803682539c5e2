"""The engines under test: command lines that all take the same options."""

import json
import os
from dataclasses import dataclass

from . import processes

_START_TIMEOUT_S = 60
_KAFKA_VERSION = "4.3.1"


@dataclass(frozen=True)
class Engine:
    """A command that runs a workload until it gets SIGTERM."""

    name: str
    command: tuple


@dataclass(frozen=True)
class Job:
    """What one start of an engine is asked to do."""

    app_id: str
    workload: str
    input: str
    output: str
    commit_ms: int


def kafka_streams(jars, classes):
    """Kafka Streams at its best setting for this work: no record cache, so every update is emitted, and the parallel collector."""
    class_path = os.pathsep.join([classes, os.path.join(jars, "*")])
    flags = ("-Xmx2g", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
    return Engine(f"Kafka Streams {_KAFKA_VERSION}", ("java", *flags, "-cp", class_path, "dev.tidegate.bench.StreamsEngine"))


def tidegate(binary):
    """Tidegate, by the adaptor in bench/tidegate-engine."""
    return Engine("Tidegate", (binary,))


def tidegate_on_librdkafka(binary):
    """The same with the transactional producer of librdkafka in place of its own."""
    return Engine("Tidegate (librdkafka)", (binary, "--producer-engine", "librdkafka"))


def command_line(engine, job, broker, state_dir):
    """The whole command: what README.md promises to every engine."""
    options = {
        "bootstrap": broker.bootstrap,
        "input": job.input,
        "output": job.output,
        "app-id": job.app_id,
        "state-dir": state_dir,
        "workload": job.workload,
        "threads": 1,
        "guarantee": "exactly_once",
        "cache-bytes": 0 if engine.name.startswith("Kafka Streams") else None,
        "commit-ms": job.commit_ms,
    }
    pairs = ((f"--{name}", str(value)) for name, value in options.items() if value is not None)
    return [*engine.command, *(word for pair in pairs for word in pair)]


class RunningEngine:
    """An engine at work; use it as a context manager."""

    def __init__(self, engine, job, broker, work):
        self._log = os.path.join(work, f"{job.app_id}.log")
        self._state_dir = os.path.join(work, "state", job.app_id)
        os.makedirs(self._state_dir)
        self._process = processes.start(command_line(engine, job, broker, self._state_dir), self._log)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        status = processes.stop(self._process)
        # The JVM answers SIGTERM with 143 after its shutdown hooks; both mean that the engine closed by itself.
        if kind is None and status not in (0, 143):
            raise RuntimeError(f"the engine ended with {status}; its log is {self._log}")

    @property
    def pid(self):
        """Process id of the engine."""
        return self._process.pid

    def check(self):
        """Raises where the engine has ended by itself."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the engine ended by itself with {self._process.returncode}; its log is {self._log}")

    def wait_until_running(self):
        """Waits until the engine says that it runs."""

        def is_running():
            self.check()
            return self._states()[-1:] == ["RUNNING"]

        processes.wait_until(is_running, _START_TIMEOUT_S, f"the engine to run (its log is {self._log})")

    def _states(self):
        states = []
        with open(self._log, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith('{"event":"state"'):
                    states.append(json.loads(line)["value"])
        return states
