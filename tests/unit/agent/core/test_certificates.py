"""Which certificates the agent may forget, and which ends a Sync has certified."""

from agent.core import commands
from agent.core.fencing import MOST_IDLE_RECORDS
from atoll.api.v1 import agent_pb2
from tests.support.agent_core import CLOSED, OTHER, World, assign, of, phases, run, starts, token


def test_a_settled_certificate_is_forgotten_and_its_attempt_is_still_refused() -> None:
    world = World().boot().running()
    for n in range(1, 2_001):
        slot = run().slot._replace(index=n)
        world.stop(n, slot)
        settled = agent_pb2.SettledAttempt(token=token(n), slot=slot.to_proto())
        world.say(settled=agent_pb2.Settled(attempts=[settled]))
    assert len(world.saved.records) <= MOST_IDLE_RECORDS
    assert not any(record.certificates for record in world.saved.records)
    assert world.report() == []
    for n in (1, 2_000):
        assert starts(world.say(assign=assign(n, run().slot._replace(index=n)))) == []


def test_only_the_settled_attempt_of_the_same_store_life_is_forgotten() -> None:
    world = World().boot().running(assign(1))
    world.connect(life=2)
    world.sync()
    slot = run().slot.to_proto()
    world.say(stop=agent_pb2.Stop(token=token(1, life=2), slot=slot))
    world.stopped()
    certified = [[c.rank for c in record.certificates] for record in world.saved.records]
    assert certified == [[run(1).rank, run(1, life=2).rank]]
    settled = agent_pb2.SettledAttempt(token=token(1, life=2), slot=slot)
    world.say(settled=agent_pb2.Settled(attempts=[settled]))
    assert [[c.rank for c in record.certificates] for record in world.saved.records] == [[run(1).rank]]


def test_nothing_is_settled_before_the_sync() -> None:
    world = World().boot().running()
    world.stop(5)
    world.connect()
    settled = agent_pb2.SettledAttempt(token=token(5), slot=run().slot.to_proto())
    world.say(settled=agent_pb2.Settled(attempts=[settled]))
    assert [len(r.certificates) for r in world.saved.records] == [1]


def test_what_a_sync_stops_is_certified_also_if_it_was_never_heard_of() -> None:
    world = World().boot().running(assign(1))
    world.connect()
    stops = [
        agent_pb2.Stop(token=token(1), slot=run().slot.to_proto(), grace_ms=700, reason="scaled down"),
        agent_pb2.Stop(token=token(3), slot=OTHER.to_proto(), grace_ms=500, reason="replaced"),
    ]
    done = world.say(sync=agent_pb2.Sync(term=1, stops=stops))
    assert [(c.run, c.grace_ms) for c in of(done, commands.StopReplica)] == [(run(), 700)]
    world.stopped()
    assert phases(world.report()) == {1: CLOSED, 3: CLOSED}
