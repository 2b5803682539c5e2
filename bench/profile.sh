#!/usr/bin/env bash
# Where the CPU time of the Tidegate engine goes during a count: writes bench/PROFILE.md. Needs perf (Debian: linux-perf).
#
# RECORDS=…      records to count (5,000,000)
# PROFILE=…      cargo profile of the engine (release)
# PORT=29092     port of the broker; the next one is its controller's
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if ! command -v perf >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends linux-perf; } >&2; then
        echo "bench/profile.sh: perf is not here and cannot be installed; install Debian's linux-perf" >&2
        exit 1
    fi
fi
MEASURE=profile exec "$here/run.sh"
