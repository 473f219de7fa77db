"""What an audit says: violations, and the verdict over a stretch of history."""

from collections import Counter
from dataclasses import dataclass

CHECKED = ("I1", "I3", "I4", "I5", "I6", "I7", "I9")
NOT_YET = ("I2", "I8", "I10", "I11", "I12")  # the store holds no record yet that could break them
SCHEMA = "schema"  # a key nobody knows, or a value that cannot be read
TRANSITIONS = ("I1", "I5", "I9")  # about how a state came about; the others are seen in one state
KEPT = 1000  # violations kept for showing; all are counted


@dataclass(frozen=True, slots=True)
class Violation:
    invariant: str
    revision: int
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.invariant} at revision {self.revision}, {self.key}: {self.message}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every revision from `since` to `revision` was checked; `checked` of them changed something."""

    revision: int
    since: int
    checked: int
    violations: tuple[Violation, ...]  # the first KEPT of them
    broken: tuple[tuple[str, int], ...]  # each broken invariant with the count of its violations
    notes: tuple[str, ...]  # what this verdict does not say

    def line(self, age_s: float) -> str:
        """`I1 I3 … hold at revision 812, 2 s ago`."""
        broken = dict(self.broken)
        parts = [f"{invariant} BROKEN {count} times" for invariant, count in self.broken]
        if held := " ".join(invariant for invariant in CHECKED if invariant not in broken):
            parts.append(f"{held} hold")
        return f"{'; '.join(parts)} at revision {self.revision}, {age_s:.0f} s ago"


class Findings:
    """Collects violations; `revision` is the one being checked."""

    def __init__(self) -> None:
        self.revision = 0
        self.states_only = False
        self.kept: list[Violation] = []
        self.counts: Counter[str] = Counter()

    def add(self, invariant: str, key: bytes, message: str) -> None:
        if self.states_only and invariant in TRANSITIONS:
            return
        self.counts[invariant] += 1
        if len(self.kept) < KEPT:
            self.kept.append(Violation(invariant, self.revision, key.decode(errors="backslashreplace"), message))
