"""House rules that no linter knows, executed. Prints every breach and exits 1 when there is one.

Run by `make check`. The rules: a file stays under 400 lines and a function under 50; a core's machine.py under 200; no
folder or module is called by a word that says nothing; stored protos have no map<>; a core imports no numpy.random, and
loops over no set, whose order is another one in every process; nothing unfinished is checked in; links and paths in
*.md lead to a file.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = {"machine.py": 200}
FILE_LINES = 400
FUNCTION_LINES = 50
EMPTY_WORDS = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "shared"}
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
PATH = re.compile(r"`([\w.-]+/[\w./-]+\.(?:py|md|proto|yaml|toml))`")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def tracked() -> list[Path]:
    """Files git knows or would add, relative to the root, without generated code."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    paths = [Path(n) for n in names if n]
    return [p for p in paths if (ROOT / p).is_file() and "_pb2" not in p.name]


def breaches(path: Path) -> Iterator[str]:
    words = {part.removesuffix(".py") for part in path.parts}
    if bad := words & EMPTY_WORDS:
        yield f"{path}: a name that says nothing: {', '.join(sorted(bad))}"
    if path.suffix == ".proto":
        text = (ROOT / path).read_text()
        if re.search(r"\bmap\s*<", text):
            yield f"{path}: map<> has no order; use repeated entries"
    if path.suffix == ".md":
        yield from page_breaches(path, (ROOT / path).read_text())
    if path.suffix == ".py":
        yield from python_breaches(path, (ROOT / path).read_text())


def page_breaches(path: Path, text: str) -> Iterator[str]:
    """Links are relative to the page; paths to the root, or, as core/machine.py, to each program."""
    places = [ROOT, *(ROOT / program for program in ("global_cp", "regional", "agent"))]
    for number, line in enumerate(text.split("\n"), 1):
        dead = [link for link in LINK.findall(line) if not (ROOT / path.parent / link).exists()]
        dead += [name for name in PATH.findall(line) if not any((place / name).exists() for place in places)]
        yield from (f"{path}:{number}: leads nowhere: {target}" for target in dead)


def python_breaches(path: Path, text: str) -> Iterator[str]:
    lines = text.count("\n")
    allowed = MOST_LINES.get(path.name, FILE_LINES) if "core" in path.parts else FILE_LINES
    if lines > allowed:
        yield f"{path}: {lines} lines, allowed {allowed}: split it by noun"
    for number, line in enumerate(text.split("\n"), 1):
        if path.name != "rules.py" and UNFINISHED.search(line):
            yield f"{path}:{number}: unfinished: {line.strip()}"
    tree = ast.parse(text)
    if lines and path.parts[0] != "tests" and not ast.get_docstring(tree):
        yield f"{path}: no module docstring: what does it decide, and what does it leave to others?"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines, allowed {FUNCTION_LINES}"
        if "core" in path.parts and isinstance(node, ast.Attribute) and ast.unparse(node).endswith("np.random"):
            yield f"{path}:{node.lineno}: a core draws no random numbers"
        if "core" in path.parts:
            looped = (over for over in _in_order(node) if _is_set(over))
            yield from (f"{path}:{over.lineno}: a loop over a set has no order" for over in looped)


def _in_order(node: ast.AST) -> list[ast.expr]:
    """What the node goes through one after the other, with an effect of the order."""
    if isinstance(node, ast.For):
        return [node.iter]
    return [each.iter for each in node.generators] if isinstance(node, ast.ListComp | ast.DictComp) else []


def _is_set(node: ast.expr) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(node, ast.Set | ast.SetComp) or (
        isinstance(called, ast.Name) and called.id in ("set", "frozenset")
    )


def main() -> None:
    found = [breach for path in tracked() for breach in breaches(path)]
    print("\n".join(found))
    if found:
        sys.exit(1)


if __name__ == "__main__":
    main()
