"""Each run goes to the driver of its task; what a node lacks is said."""

from agent.core.events import DriverStarted, DriverStartFailed
from agent.drivers.by_task import ByTask
from agent.drivers.driver import Notice, RunSpec
from agent.drivers.fake import Behaviour, FakeDriver
from atoll.api.v1 import objects_pb2
from tests.support.agent_core import run

PROCESS, DOCKER = objects_pb2.DRIVER_PROCESS, objects_pb2.DRIVER_DOCKER


def spec(**fields: object) -> RunSpec:
    return RunSpec(objects_pb2.Task(**fields), ())  # type: ignore[arg-type]


async def test_a_run_lives_in_the_driver_of_its_task() -> None:
    notices: list[Notice] = []
    processes = FakeDriver(notices.append, lambda *_: Behaviour(output=b"process\n"))
    engine = FakeDriver(notices.append, lambda *_: Behaviour(output=b"container\n"))
    both = ByTask({PROCESS: processes, DOCKER: engine}, notices.append)
    both.start(run(1), spec(command=["x"]))
    assert (await both.logs(run().slot, 1))[0] == b"process\n"
    both.start(run(2), spec(image="web:1"))
    assert (await both.logs(run().slot, 1))[0] == b"container\n"
    processes.advance(10)
    engine.advance(10)
    assert (processes.alive, engine.alive) == ((run(1),), (run(2),))
    assert notices == [DriverStarted(run(1)), DriverStarted(run(2))]
    both.stop(run(2), 0)
    engine.advance(20)
    assert (processes.alive, engine.alive) == ((run(1),), ())
    after = ByTask({PROCESS: processes, DOCKER: engine}, notices.append)
    assert {found.run for found in after.adopt()} == {run(1), run(2)}
    assert (await after.logs(run().slot, 1))[0] == b"container\n"


def test_a_driver_that_is_not_there_is_said() -> None:
    notices: list[Notice] = []
    only = ByTask({PROCESS: FakeDriver(notices.append, lambda *_: Behaviour())}, notices.append)
    only.start(run(1), spec(image="web:1"))
    assert notices == [DriverStartFailed(run(1), "DriverMissing: this node has no DRIVER_DOCKER")]
