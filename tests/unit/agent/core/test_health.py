from agent.core.health import Health, Kind
from atoll.api.v1 import objects_pb2

TCP = objects_pb2.TcpCheck(port=80)
COMMAND = objects_pb2.CommandCheck(command=["true"])


def kinds(health: Health, now_ms: int) -> list[Kind]:
    return [kind for kind, _, _ in health.due(now_ms)]


def test_without_probes_a_run_is_ready_and_serving() -> None:
    health = Health(objects_pb2.Task(), 0)
    assert health.ready and health.serving
    assert health.next_deadline() is None


def test_readiness_counts_successes_and_failures_in_a_row() -> None:
    probe = objects_pb2.Probe(command=COMMAND, success_threshold=2, failure_threshold=2, interval_ms=100)
    health = Health(objects_pb2.Task(readiness=probe), 0)
    history = []
    for ok in (True, False, True, True, False, False, True):
        assert kinds(health, health.next_deadline() or 0) == [Kind.READINESS]
        assert health.answered(Kind.READINESS, ok, "no", 0) == ""
        history.append(health.ready)
    assert history == [False, False, False, True, True, False, False]
    assert health.message == ""


def test_liveness_ends_the_run_after_its_threshold_but_not_in_the_start_period() -> None:
    probe = objects_pb2.Probe(tcp=TCP, failure_threshold=2, start_period_ms=1000)
    health = Health(objects_pb2.Task(liveness=probe), 0)
    answers = [health.answered(Kind.LIVENESS, False, "refused", now_ms) for now_ms in (0, 999, 1000, 1001)]
    assert answers == ["", "", "", "liveness: refused"]
    assert health.ready


def test_a_check_that_could_not_be_made_says_nothing() -> None:
    probe = objects_pb2.Probe(command=COMMAND, failure_threshold=2, interval_ms=100)
    health = Health(objects_pb2.Task(liveness=probe, readiness=probe), 0)
    health.answered(Kind.READINESS, True, "", 0)
    for now_ms in (100, 200, 300):
        assert set(kinds(health, now_ms)) == {Kind.LIVENESS, Kind.READINESS}
        assert health.answered(Kind.LIVENESS, None, "the engine hangs", now_ms) == ""
        assert health.answered(Kind.READINESS, None, "the engine hangs", now_ms) == ""
    assert health.ready
    assert [health.answered(Kind.LIVENESS, False, "no", 400) for _ in range(2)] == ["", "liveness: no"]


def test_a_port_is_probed_once_when_ready() -> None:
    probe = objects_pb2.Probe(command=COMMAND, interval_ms=100)
    health = Health(objects_pb2.Task(readiness=probe, ports=[objects_pb2.Port(number=81)]), 0)
    assert kinds(health, 0) == [Kind.READINESS]
    health.answered(Kind.READINESS, True, "", 0)
    assert health.ready and not health.serving
    ((kind, check, timeout_ms),) = health.due(0)
    assert (kind, check.tcp.port, timeout_ms) == (Kind.PORT, 81, 1000)
    health.answered(Kind.PORT, True, "", 0)
    assert health.serving
    assert kinds(health, 100) == [Kind.READINESS]


def test_a_readiness_probe_through_a_port_needs_no_second_one() -> None:
    task = objects_pb2.Task(readiness=objects_pb2.Probe(tcp=TCP), ports=[objects_pb2.Port(number=80)])
    health = Health(task, 0)
    assert kinds(health, 0) == [Kind.READINESS]
    health.answered(Kind.READINESS, True, "", 0)
    assert health.serving


def test_a_check_is_in_flight_once() -> None:
    health = Health(objects_pb2.Task(liveness=objects_pb2.Probe(tcp=TCP, interval_ms=10)), 0)
    assert kinds(health, 0) == [Kind.LIVENESS]
    assert kinds(health, 1000) == []
    assert health.next_deadline() is None
    health.answered(Kind.LIVENESS, True, "", 1000)
    assert health.next_deadline() == 10
