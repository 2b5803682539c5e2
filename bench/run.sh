#!/usr/bin/env bash
# Tidegate beside Kafka Streams on one broker: throughput, CPU, memory and latency; writes bench/RESULTS.md and fails
# where a target is missed. Nothing else should run on the machine meanwhile.
#
# QUICK=1        a few records, to see that everything works; targets do not count and the page goes elsewhere
# RUNS=3         runs of each measurement
# RECORDS=…      records of a throughput run (5,000,000)
# ONLY=…         throughput or latency alone; no page then
# ENGINE=…       tidegate or kafka-streams alone; no page then
# INTERVAL=…     latency at a commit interval of 100 or 10 ms alone; no page then
# LIBRDKAFKA=1   Tidegate with librdkafka's transactional producer as well, beside its own; no page then
# PROFILE=…      cargo profile of the engine (release)
# PORT=29092     port of the broker; the next one is its controller's
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
assignments=$("$here/setup.sh")
eval "$assignments"

profile=${PROFILE:-release}
# The whole workspace, since a selection of packages has other features and would build the dependencies again.
(cd "$root" && cargo build --locked --workspace --profile "$profile" --bin tidegate-bench)
target=$(cd "$root" && cargo metadata --locked --no-deps --format-version 1 | "$BENCH_PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
directory=$profile
if [ "$profile" = dev ]; then directory=debug; fi

work=$(mktemp -d "$BENCH_CACHE/run.XXXXXX")
harness=
# The harness stops broker and engines when it gets a SIGTERM; what is left is removed only when a run went well.
trap 'if [ -n "$harness" ]; then kill -TERM "$harness" 2>/dev/null && wait "$harness"; fi; exit 130' INT TERM

arguments=()
results=$here/RESULTS.md
command="make bench"
if [ "${MEASURE:-}" = profile ]; then
    arguments+=(--measure profile)
    results=$here/PROFILE.md
    command=bench/profile.sh
fi
if [ -n "${QUICK:-}" ]; then
    arguments+=(--quick)
    results=$BENCH_CACHE/quick-$(basename "$results")
fi
if [ -n "${RUNS:-}" ]; then arguments+=(--runs "$RUNS"); fi
if [ -n "${RECORDS:-}" ]; then arguments+=(--records "$RECORDS"); fi
if [ -n "${ONLY:-}" ]; then arguments+=(--only "$ONLY"); fi
if [ -n "${ENGINE:-}" ]; then arguments+=(--engine "$ENGINE"); fi
if [ -n "${INTERVAL:-}" ]; then arguments+=(--interval "$INTERVAL"); fi
if [ -n "${LIBRDKAFKA:-}" ]; then arguments+=(--librdkafka); fi

for setting in QUICK RUNS RECORDS PROFILE; do
    if [ -n "${!setting:-}" ]; then command+=" $setting=${!setting}"; fi
done
export BENCH_COMMAND=$command
PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 "$BENCH_PYTHON" -m harness --jars "$BENCH_JARS" --classes "$BENCH_CLASSES" \
    --tidegate "$target/$directory/tidegate-bench" --work "$work" --results "$results" --port "${PORT:-29092}" "${arguments[@]}" &
harness=$!
status=0
wait "$harness" || status=$?
harness=
if [ "$status" = 0 ] || [ "$status" = 3 ]; then
    rm -rf "$work"
else
    echo "bench/run.sh: logs are in $work" >&2
fi
exit "$status"
