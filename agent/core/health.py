"""When to probe one run, and what the answers mean: live, ready, serving.

Liveness and readiness are apart: a failed liveness probe ends the run, a failed readiness probe only takes it out of
service. Serving = ready, and probed once through its first port when it has one; what nothing asks serves once it has
run for a while (replica.py). The shell makes single checks; the intervals, thresholds and the start period are decided
here. A check is in flight at most once per kind.
"""

from dataclasses import dataclass
from enum import Enum

from atoll.api.v1 import objects_pb2

INTERVAL_MS = 2_000
TIMEOUT_MS = 1_000
FAILURES = 3
SUCCESSES = 1


class Kind(Enum):
    LIVENESS = "liveness"
    READINESS = "readiness"
    PORT = "port"  # one connection through the first port


@dataclass(slots=True)
class _Check:
    kind: Kind
    probe: objects_pb2.Probe
    next_ms: int
    in_flight: bool = False
    failures: int = 0
    successes: int = 0
    passing: bool = False
    message: str = ""


class Health:
    """The probes of one run, from its start to its end."""

    def __init__(self, task: objects_pb2.Task, started_ms: int) -> None:
        self._started_ms = started_ms
        self._checks: dict[Kind, _Check] = {}
        for kind, probe in ((Kind.LIVENESS, task.liveness), (Kind.READINESS, task.readiness)):
            if probe.WhichOneof("check"):
                self._checks[kind] = _Check(kind, probe, started_ms)
        if task.ports and task.readiness.WhichOneof("check") not in ("http", "tcp"):
            through = objects_pb2.Probe(tcp=objects_pb2.TcpCheck(port=task.ports[0].number))
            self._checks[Kind.PORT] = _Check(Kind.PORT, through, started_ms)

    @property
    def ready(self) -> bool:
        readiness = self._checks.get(Kind.READINESS)
        return readiness is None or readiness.passing

    @property
    def probes_readiness(self) -> bool:
        """Else it is ready from its start."""
        return Kind.READINESS in self._checks

    @property
    def serving(self) -> bool:
        port = self._checks.get(Kind.PORT)
        return self.ready and (port is None or port.passing)

    @property
    def unasked(self) -> bool:
        """No answer of its own says that it serves."""
        return not {Kind.READINESS, Kind.PORT} & self._checks.keys()

    @property
    def message(self) -> str:
        """Why it is not ready."""
        readiness = self._checks.get(Kind.READINESS)
        return "" if readiness is None or readiness.passing else readiness.message

    def due(self, now_ms: int) -> list[tuple[Kind, objects_pb2.Probe, int]]:
        """Checks to make now, with their timeouts; each must be answered."""
        found = []
        for check in self._checks.values():
            if self._wanted(check) and now_ms >= check.next_ms:
                check.in_flight = True
                check.next_ms = now_ms + (check.probe.interval_ms or INTERVAL_MS)
                found.append((check.kind, check.probe, check.probe.timeout_ms or TIMEOUT_MS))
        return found

    def answered(self, kind: Kind, ok: bool | None, message: str, now_ms: int) -> str:
        """Why the run must end, or nothing. A check that could not be made (None) says nothing of the run."""
        check = self._checks[kind]
        check.in_flight = False
        check.message = "" if ok else f"{kind.value}: {message}"
        if ok is None:
            return ""
        if ok:
            check.successes, check.failures = check.successes + 1, 0
            if check.successes >= (check.probe.success_threshold or SUCCESSES):
                check.passing = True
            return ""
        check.successes = 0
        if kind is not Kind.READINESS and now_ms < self._started_ms + check.probe.start_period_ms:
            return ""
        check.failures += 1
        if check.failures < (check.probe.failure_threshold or FAILURES):
            return ""
        check.passing = False
        return check.message if kind is Kind.LIVENESS else ""

    def next_deadline(self) -> int | None:
        return min([c.next_ms for c in self._checks.values() if self._wanted(c)], default=None)

    def _wanted(self, check: _Check) -> bool:
        if check.in_flight:
            return False
        return check.kind is not Kind.PORT or (self.ready and not check.passing)
