"""PROFILE.md: where the engine's CPU time goes, by thread, by library and by function."""

import re
import subprocess

_LINES = {"comm": 20, "dso": 10, "symbol": 40}
# Names of generic functions are long.
_NAME_CHARACTERS = 110
_TITLES = {"comm": "By thread", "dso": "By library", "symbol": "By function"}


def record(pid, data):
    """Starts to sample a process that runs; ends with SIGTERM."""
    command = ["perf", "record", "--quiet", "--freq", "997", "--pid", str(pid), "--output", data]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def markdown(data, description, command):
    """The page, from perf's samples."""
    lines = ["# Profile", "", f"Written by `{command}`: {description}", ""]
    for key, title in _TITLES.items():
        lines += [f"## {title}", "", "| share | |", "|---|---|", *_rows(data, key), ""]
    return "\n".join(lines)


def _rows(data, key):
    command = ["perf", "report", "--input", data, "--stdio", "--no-children", "--sort", key, "--percent-limit", "0.1"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    entries = (line.strip() for line in report.splitlines() if line.strip() and not line.startswith("#"))
    for entry in list(entries)[: _LINES[key]]:
        share, name = entry.split(maxsplit=1)
        # Newer versions of perf append empty columns of another report.
        name = re.sub(r"(\s+-)+$", "", name)[:_NAME_CHARACTERS]
        yield f"| {share} | `{name.replace('|', chr(92) + '|')}` |"
