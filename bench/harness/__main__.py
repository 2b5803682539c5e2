"""Command line of the harness; bench/run.sh sets everything up and calls it."""

import argparse
import json
import os
import signal
import sys

from . import engines, profile
from .broker import Broker
from .measure import Bench, Scale
from .report import Results

FULL = Scale(records=5_000_000, distinct=1_000_000, throughput_runs=3, latency_runs=3, latency_seconds=45, warm_up_seconds=15)
QUICK = Scale(records=200_000, distinct=50_000, throughput_runs=1, latency_runs=1, latency_seconds=5, warm_up_seconds=5)
COMMIT_INTERVALS_MS = (100, 10)
# The exit status where a target is missed; other failures end with 1, as Python does.
MISSED = 3


def options():
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--jars", required=True, help="directory of the jars")
    parser.add_argument("--classes", required=True, help="directory of the compiled classes")
    parser.add_argument("--tidegate", required=True, help="binary of the Tidegate engine")
    parser.add_argument("--work", required=True, help="scratch directory, removed by the caller")
    parser.add_argument("--results", required=True, help="the page to write")
    parser.add_argument("--port", type=int, default=29092, help="port of the broker; the next one is its controller's")
    parser.add_argument("--runs", type=int, help="runs of each measurement in place of three")
    parser.add_argument("--records", type=int, help="records of a throughput run")
    parser.add_argument("--only", choices=["throughput", "latency"], help="one of the measurements")
    parser.add_argument("--engine", choices=["tidegate", "kafka-streams"], help="one engine alone; no page is written then")
    parser.add_argument("--interval", type=int, choices=COMMIT_INTERVALS_MS, help="latency at one commit interval alone; no page is written then")
    parser.add_argument("--librdkafka", action="store_true", help="Tidegate with librdkafka's producer as well; no page is written then")
    parser.add_argument("--measure", choices=["comparison", "profile"], default="comparison", help="what to find out")
    parser.add_argument("--quick", action="store_true", help="a few records, to see that everything works; targets do not count")
    return parser.parse_args()


def scale(chosen):
    """The amount of work that was asked for."""
    base = QUICK if chosen.quick else FULL
    changes = {}
    if chosen.runs:
        changes |= {"throughput_runs": chosen.runs, "latency_runs": chosen.runs}
    if chosen.records:
        changes |= {"records": chosen.records}
    return Scale(**{**base.__dict__, **changes})


def measure(bench, chosen_engines, only, intervals):
    """All runs, the engines taking turns, so that all see the same machine; yields a record of each."""
    amount = bench.scale
    if only != "latency":
        topic = bench.prefill()
        for _ in range(amount.throughput_runs):
            for workload in ("count", "pass"):
                for engine in chosen_engines:
                    yield bench.throughput(engine, workload, topic)
        bench.broker.delete_topics(topic)
    if only != "throughput":
        for _ in range(amount.latency_runs):
            for commit_ms in intervals:
                for engine in chosen_engines:
                    yield bench.latency(engine, commit_ms)


def write(path, text):
    """Writes a page and says where."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    print(f"results: {path}")


def write_profile(bench, engine, chosen, command):
    """Profiles our engine and writes the page."""
    data = os.path.join(chosen.work, "perf.data")
    description = bench.profile(engine, bench.prefill(), data)
    write(chosen.results, profile.markdown(data, description, command))


def main():
    """Measures, writes the page, and answers MISSED where a target is missed."""
    chosen = options()
    # An end from outside must stop the broker and the engine too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ours, theirs = engines.tidegate(chosen.tidegate), engines.kafka_streams(chosen.jars, chosen.classes)
    ours_besides = [engines.tidegate_on_librdkafka(chosen.tidegate)] if chosen.librdkafka else []
    ours_all = [ours, *ours_besides]
    chosen_engines = {"tidegate": ours_all, "kafka-streams": [theirs]}.get(chosen.engine, [*ours_all, theirs])
    intervals = (chosen.interval,) if chosen.interval else COMMIT_INTERVALS_MS
    amount = scale(chosen)
    command = os.environ.get("BENCH_COMMAND", "bench/run.sh")
    runs = []
    with Broker(chosen.jars, chosen.work, chosen.port) as broker:
        bench = Bench(broker, chosen.jars, chosen.classes, chosen.work, amount)
        if chosen.measure == "profile":
            write_profile(bench, ours, chosen, command)
            return 0
        for run in measure(bench, chosen_engines, chosen.only, intervals):
            runs.append(run)
            print(json.dumps(run), flush=True)
    if chosen.engine or chosen.only or chosen.interval or chosen.librdkafka:
        return 0
    results = Results(runs, ours.name, theirs.name)
    write(chosen.results, results.markdown(amount, command))
    missed = 0
    for target in results.targets():
        missed += not target.is_met
        sign = "at least" if target.at_least else "at most"
        print(f"{'met   ' if target.is_met else 'MISSED'} {target.text}: {target.reached:.2f} x, {sign} {target.limit:g} x")
    if chosen.quick:
        print("quick run: these figures mean nothing, and targets do not count")
        return 0
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
