"""Codes: each in the table of docs/cli.md, and nothing in the table that no code says."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CODE = re.compile(r"E[1-6]\d{3}")
PROGRAMS = ("atoll", "global_cp", "regional", "agent")


def in_sources() -> set[str]:
    files = (path for program in PROGRAMS for path in (ROOT / program).rglob("*.py") if "_pb2" not in path.name)
    return {code for path in files for code in re.findall(r'"(E[1-6]\d{3})"', path.read_text())}


def in_docs() -> list[str]:
    table = (ROOT / "docs" / "cli.md").read_text().partition("## Error codes")[2].partition("\n## ")[0]
    return [code for line in table.split("\n") if line.startswith("| E") for code in CODE.findall(line.split("|")[1])]


def test_every_code_is_documented_once() -> None:
    assert sorted(in_docs()) == sorted(in_sources())
