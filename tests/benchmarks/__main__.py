"""Runs the benchmarks of workloads.toml, each in a process of its own, and prints their results as one JSON document.

`python -m tests.benchmarks [--seconds N] [--only TEXT] [--json FILE]`
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

WORKLOADS = Path(__file__).with_name("workloads.toml")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=int, help="instead of each benchmark's own")
    parser.add_argument("--only", default="", help="benchmarks whose name contains this")
    parser.add_argument("--json", type=Path, help="write the results here too")
    arguments = parser.parse_args()
    results = {}
    for benchmark in tomllib.loads(WORKLOADS.read_text())["benchmark"]:
        if arguments.only in benchmark["name"]:
            print(f"{benchmark['name']} …", file=sys.stderr, flush=True)
            results[benchmark["name"]] = _run(benchmark, arguments.seconds)
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def _run(benchmark: dict[str, Any], seconds: int | None) -> Any:
    given = dict(benchmark["arguments"])
    if seconds and "seconds" in given:
        given["seconds"] = seconds
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        flags = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        subprocess.run([sys.executable, "-m", benchmark["module"], *flags, "--json", str(out)], check=True, stdout=2)
        return json.loads(out.read_text())


if __name__ == "__main__":
    main()
