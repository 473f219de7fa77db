import pytest

from agent.drivers.driver import RunSpec
from agent.drivers.fake import obedient
from atoll.api.v1 import objects_pb2
from tests.support.agent_core import run


@pytest.mark.parametrize(
    ("command", "runs_ms"),
    [(["sleep", "0.25"], 250), (["sleep", "2"], 2_000), (["sleep", "inf"], None), (["serve"], None), ([], None)],
)
def test_a_sleep_ends_by_itself(command: list[str], runs_ms: int | None) -> None:
    assert obedient(run(), RunSpec(objects_pb2.Task(command=command), ())).runs_ms == runs_ms
