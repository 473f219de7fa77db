"""Generates atoll/api from proto/. With --check: generates into a temporary folder and compares.

Run by `make proto` and `make check`. The generator's version is pinned in pyproject.toml: a newer one would refuse
users with protobuf 6.
"""

import argparse
import filecmp
import importlib.resources
import os
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
SOURCES = sorted(PROTO.rglob("*.proto"))


def generate(target: Path) -> None:
    """Writes messages, stubs and type stubs below `target`. Exits when protoc refuses."""
    includes = importlib.resources.files("grpc_tools") / "_proto"
    arguments = [
        "protoc",
        f"-I{PROTO}",
        f"-I{includes}",
        f"--python_out={target}",
        f"--mypy_out={target}",
        *map(str, SOURCES),
    ]
    services = [str(p) for p in SOURCES if "service " in p.read_text()]
    stubs = [
        "protoc",
        f"-I{PROTO}",
        f"-I{includes}",
        f"--grpc_python_out={target}",
        f"--mypy_grpc_out={target}",
    ]
    if protoc.main(arguments) or protoc.main(stubs + services):
        sys.exit("protoc failed")


def differences(left: Path, right: Path) -> list[str]:
    """Generated files that differ or exist on one side only, relative to the roots."""
    found = []
    names = {p.relative_to(r) for r in (left, right) for p in r.glob("atoll/api/**/*_pb2*") if p.suffix != ".pyc"}
    for name in sorted(names):
        a, b = left / name, right / name
        if not (a.exists() and b.exists() and filecmp.cmp(a, b, shallow=False)):
            found.append(str(name))
    return found


def main() -> None:
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # protoc's plugins
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if not parser.parse_args().check:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = differences(Path(folder), ROOT)
    if stale:
        sys.exit("not generated from proto/: " + ", ".join(stale) + "\nrun: make proto")


if __name__ == "__main__":
    main()
