"""Runs the benchmarks of workloads.toml, each in a process of its own, and prints their results as one JSON document.

`python -m tests.benchmarks [--seconds N] [--only TEXT] [--json FILE] [--data FOLDER [--plot FOLDER]]`

Those with `data` replay a trace, from that folder below `--data`; without it they are left out.
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
    parser.add_argument("--data", type=Path, help="the folder with the traces")
    parser.add_argument("--plot", type=Path, help="where the replays of traces leave a PNG and a page each")
    arguments = parser.parse_args()
    results = {}
    for benchmark in tomllib.loads(WORKLOADS.read_text())["benchmark"]:
        if arguments.only in benchmark["name"] and (arguments.data or "data" not in benchmark):
            print(f"{benchmark['name']} …", file=sys.stderr, flush=True)
            results[benchmark["name"]] = _run(benchmark, arguments)
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def _run(benchmark: dict[str, Any], arguments: argparse.Namespace) -> Any:
    given = dict(benchmark["arguments"])
    if arguments.seconds and "seconds" in given:
        given["seconds"] = arguments.seconds
    if "data" in benchmark:
        given["data"] = arguments.data / benchmark["data"]
        if arguments.plot:
            given["plot"] = arguments.plot
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        flags = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        subprocess.run([sys.executable, "-m", benchmark["module"], *flags, "--json", str(out)], check=True, stdout=2)
        return json.loads(out.read_text())


if __name__ == "__main__":
    main()
