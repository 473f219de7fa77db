"""Which of several candidates the node belongs to, and whom it says hello to."""

from agent.core import commands, events
from atoll.api.v1 import agent_pb2, objects_pb2
from tests.support.agent_core import World, assign, of, run, starts, statuses

PROCESS, DOCKER = objects_pb2.DRIVER_PROCESS, objects_pb2.DRIVER_DOCKER


def hellos(done: list[commands.Command]) -> list[tuple[int, int]]:
    """Session and the term each answers."""
    sent = [c for c in of(done, commands.SendUp) if c.message.HasField("hello")]
    return [(c.session, c.message.hello.answers_term) for c in sent]


def said(session: int, **body: object) -> events.RegionSaid:
    return events.RegionSaid(session, agent_pb2.RegionMessage(**body))  # type: ignore[arg-type]


def leading(session: int, term: int, life: int = 1) -> events.RegionSaid:
    return said(session, leading=agent_pb2.Leading(store_life=life, term=term))


def not_leader(session: int, address: str = "") -> events.RegionSaid:
    return said(session, not_leader=agent_pb2.NotLeader(address=address))


def welcome(session: int, term: int) -> events.RegionSaid:
    told = agent_pb2.Welcome(store_life=1, epoch=1, term=term, heartbeat_ms=1000, fence_after_ms=4000)
    return said(session, welcome=told)


def with_standby(*assigns: agent_pb2.Assign) -> World:
    """Session 1 is the leader's, in term 1; session 2 a standby's."""
    world = World().boot().running(*assigns)
    assert hellos(world.post(events.Connected(2))) == []
    assert hellos(world.post(not_leader(2))) == []
    return world


def test_without_a_leader_every_candidate_is_told_hello_at_once() -> None:
    world = World().boot()
    assert hellos(world.post(events.Connected(1))) == [(1, 0)]
    assert hellos(world.post(events.Connected(2))) == [(2, 0)]
    assert hellos(world.post(leading(2, 1))) == [], "it has been told"
    assert world.post(not_leader(1)) == []
    world.post(welcome(2, 1))
    assert of(world.wait(10_000), commands.Reconnect) == [commands.Reconnect(2, "heartbeats are not answered")]


def test_a_standby_that_takes_over_gets_the_whole_inventory_on_the_stream_that_is_there() -> None:
    world = with_standby(assign(1))
    done = world.post(leading(2, 2))
    assert hellos(done) == [(2, 2)]
    assert [status.attempt.n for status in statuses(done)] == [1]
    world.post(welcome(2, 2))
    world.post(said(2, sync=agent_pb2.Sync(term=2, assignments=[assign(1, term=2)])))
    assert world.post(said(1, assign=assign(5))) == [], "the old leader is not heard"
    done = world.post(said(2, stop=agent_pb2.Stop(token=assign(1, term=2).token, slot=assign(1).slot)))
    assert [c.run for c in of(done, commands.StopReplica)] == [run()]
    assert {c.session for c in of(world.wait(3000), commands.SendUp)} == {2}


def test_until_the_new_leader_welcomes_it_the_node_belongs_to_the_old_one() -> None:
    world = with_standby()
    world.post(leading(2, 2))
    assert starts(world.post(said(1, assign=assign(3)))) == [3]
    assert [c.session for c in of(world.wait(20), commands.SendUp)] == [1]
    world.post(welcome(2, 2))
    world.post(said(2, sync=agent_pb2.Sync(term=2, assignments=[assign(3, term=2)])))
    news = [c for c in of(world.wait(20), commands.SendUp) if c.message.HasField("status")]
    assert [(c.session, [a.attempt.n for a in c.message.status.attempts]) for c in news] == [(2, [3])]


def test_a_candidate_of_a_lower_term_is_not_told_hello() -> None:
    world = with_standby()
    world.post(leading(2, 5))
    world.post(welcome(2, 5))
    world.post(events.Disconnected(1))
    world.post(events.Connected(3))
    assert hellos(world.post(leading(3, 4))) == []
    assert hellos(world.post(events.Disconnected(2))) == [], "it is stale all the same"
    assert hellos(world.post(leading(3, 6))) == [(3, 6)]


def test_the_leader_on_a_second_stream_is_kept_for_the_time_when_the_first_ends() -> None:
    world = World().boot().running()
    world.post(events.Connected(2))
    assert hellos(world.post(leading(2, 1))) == []
    assert hellos(world.post(events.Disconnected(1))) == [(2, 1)]


def test_a_leader_that_stands_by_keeps_its_stream_and_may_lead_again() -> None:
    world = with_standby()
    done = world.post(not_leader(1, "r2:7171"))
    assert done == [commands.Dial("r2:7171")]
    assert hellos(world.post(leading(1, 3))) == [(1, 3)]
    world.post(welcome(1, 3))
    assert next(c.session for c in of(world.wait(1000), commands.SendUp)) == 1


def test_a_hello_before_not_leader_is_never_taken_for_the_next_one() -> None:
    """The Welcome of the first would come with a Sync that does not know what the second tells."""
    world = World().boot()
    world.post(events.Connected(1))
    world.post(leading(1, 1))
    world.post(not_leader(1))
    assert world.post(welcome(1, 1)) == []
    assert hellos(world.post(leading(1, 2))) == [(1, 2)]


def test_a_frozen_leader_is_no_reason_to_wait() -> None:
    world = with_standby(assign(1))
    world.wait(2000)
    assert hellos(world.post(leading(2, 2))) == [(2, 2)], "long before its silence is noticed"


def test_what_a_node_can_run_is_told_anew_when_it_changes() -> None:
    world = World().boot()
    assert world.post(events.DriversOffered((PROCESS,))) == []
    (hello,) = of(world.open(), commands.SendUp)
    assert list(hello.message.hello.drivers) == [PROCESS]
    assert of(world.post(events.DriversOffered((PROCESS,))), commands.Reconnect) == []
    (left,) = of(world.post(events.DriversOffered((PROCESS, DOCKER))), commands.Reconnect)
    assert left.session == world.session
    (hello,) = of(world.open(), commands.SendUp)
    assert list(hello.message.hello.drivers) == [PROCESS, DOCKER]
