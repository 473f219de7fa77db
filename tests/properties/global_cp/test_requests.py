"""Request ids under crashes: what was answered is stored (I11), happens once, and is answered the same for ever."""

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from atoll.api.v1 import global_pb2
from atoll.errors import AtollError, Busy, Conflict, NotFound, OutcomeUnknown, Unavailable
from global_cp.config import CoreSettings
from global_cp.core import events
from tests.support.global_core import GlobalCore, workload

NAMES = ("a", "b")
IDS = ("r1", "r2", "r3", "r4", "r5", "r6")
Body = tuple[str, str, int]  # (what, name, replicas)


class Intake(RuleBasedStateMachine):
    """Users ask and ask again under few ids; commits are slow; leaders resign, crash and follow each other."""

    @initialize(lanes=st.integers(1, 3))
    def begin(self, lanes: int) -> None:
        self.core = GlobalCore(CoreSettings(lanes=lanes, intake_limit=4))
        self.core.elect()
        self.core.tenant()
        self.core.hold_commits = True
        self.asked: dict[int, tuple[str, Body]] = {}
        self.yes: dict[str, tuple[Body, object]] = {}

    @rule(
        request_id=st.sampled_from(IDS),
        what=st.sampled_from(["apply", "scale", "delete"]),
        name=st.sampled_from(NAMES),
        replicas=st.integers(0, 2),
    )
    def ask(self, request_id: str, what: str, name: str, replicas: int) -> None:
        body = (what, name, replicas if what != "delete" else 0)
        self.asked[self.core.start(_request(request_id, body))] = (request_id, body)
        self.read_answers()

    @rule(count=st.integers(1, 3))
    def commits_land(self, count: int) -> None:
        self.core.release(count)
        self.read_answers()

    @rule(applied=st.integers(0, 2))
    def crash(self, applied: int) -> None:
        self.core.crash(applied)
        self.core.elect()
        self.read_answers()

    @rule()
    def leadership_moves(self) -> None:
        self.core.post(events.LeadershipLost("its lease is gone"))
        self.core.elect()
        self.read_answers()

    @rule(ms=st.integers(1, 2_000))
    def time_passes(self, ms: int) -> None:
        self.core.pass_time(ms)
        self.read_answers()

    def read_answers(self) -> None:
        for reply_to in [r for r in self.asked if r in self.core.replies]:
            request_id, body = self.asked.pop(reply_to)
            answer = self.core.replies[reply_to].answer
            if isinstance(answer, AtollError):
                assert isinstance(answer, Busy | Conflict | NotFound | OutcomeUnknown | Unavailable), answer
                assert (self.yes.get(request_id) or (None,))[0] != body or isinstance(answer, Unavailable | Busy), (
                    f"{request_id} was answered before, and now {answer}"
                )
                continue
            known = self.yes.setdefault(request_id, (body, answer))
            assert known == (body, answer), f"{request_id} has two answers"

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        self.core.hold_commits = False
        self.core.release()
        self.core.elect()
        records = self.core.records
        for request_id, (body, answer) in self.yes.items():
            assert records.requests.get("acme", request_id) is not None, f"{request_id}: answered and not stored"
            again = self.core.replies[self.core.start(_request(request_id, body))].answer
            assert again == answer
        self.core.clean()


def _request(
    request_id: str, body: Body
) -> "global_pb2.ApplyWorkloadRequest | global_pb2.ScaleWorkloadRequest | global_pb2.DeleteWorkloadRequest":
    what, name, replicas = body
    if what == "apply":
        return global_pb2.ApplyWorkloadRequest(workload=workload(name, replicas), request_id=request_id)
    if what == "scale":
        return global_pb2.ScaleWorkloadRequest(tenant="acme", name=name, replicas=replicas, request_id=request_id)
    return global_pb2.DeleteWorkloadRequest(tenant="acme", name=name, request_id=request_id)


Intake.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestIntake = Intake.TestCase
