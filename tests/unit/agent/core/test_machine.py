from agent.core import commands, events
from agent.core.runs import Exit, Found
from atoll.api.v1 import agent_pb2, objects_pb2
from tests.support.agent_core import (
    ACCEPTED,
    BACKOFF,
    CLOSED,
    EXCLUSIVE,
    OTHER,
    RUNNING,
    STARTING,
    STOPPING,
    World,
    assign,
    of,
    phases,
    run,
    starts,
    statuses,
    token,
)


def test_nothing_starts_before_one_sync_nor_before_its_record_is_durable() -> None:
    world = World(disk=False).boot()
    world.connect()
    assert starts(world.say(assign=assign())) == []
    assert starts(world.sync(assign())) == []
    first = world.written()  # of the welcome: the assignment came while it was under way
    assert starts(first) == []
    assert world.writing is not None
    assert world.writing.saved.records[0].assign == assign()
    assert starts(world.written()) == [1]


def test_one_assignment_starts_all_the_replicas_it_names() -> None:
    world = World().boot()
    world.connect()
    world.sync()
    several = assign(1)
    for index, n in ((1, 2), (2, 3)):
        several.also.add(index=index, attempt=objects_pb2.Attempt(term=1, n=n))
    assert starts(world.say(assign=several)) == [1, 2, 3]
    kept = [record.assign for record in world.saved.records if record.assign]
    assert [(k.slot.index, k.token.attempt.n, len(k.also)) for k in kept] == [(0, 1, 0), (1, 2, 0), (2, 3, 0)]


def test_a_failed_checkpoint_is_told_and_tried_again() -> None:
    world = World().boot()
    world.connect()
    world.sync()
    world.disk = False
    world.say(assign=assign())
    assert world.writing is not None
    done = world.post(events.CheckpointFailed(world.writing.version, "no space left"))
    assert of(done, commands.WriteCheckpoint) == []
    (status,) = world.report()
    assert (status.phase, status.message) == (ACCEPTED, "StorageFailed: not started: no space left")
    world.disk, world.writing = True, None
    assert starts(world.wait(5_000)) == [1]


def test_each_change_is_told_once_and_together() -> None:
    world = World().boot()
    world.connect()
    world.sync(assign(1), assign(1, OTHER))
    told = world.report()
    assert [s.phase for s in told] == [STARTING, STARTING]
    world.post(events.DriverStarted(run()))
    world.post(events.DriverStarted(run(1, OTHER)))
    assert [s.phase for s in world.report()] == [RUNNING, RUNNING]
    assert world.report() == []


def test_stop_closes_with_a_certificate_only_when_dead_and_durable() -> None:
    world = World().boot().running(assign())
    done = world.stop(1)
    assert [(c.run, c.grace_ms) for c in of(done, commands.StopReplica)] == [(run(), 500)]
    assert world.stop(1) == []
    assert phases(world.report()) == {1: STOPPING}
    assert starts(world.say(assign=assign())) == []
    world.disk = False
    world.stopped()
    assert phases(world.report()) == {}
    world.written()
    (status,) = world.report()
    assert (status.phase, status.exit.code, status.exit.reason) == (CLOSED, 143, "Stopped")


def test_stop_of_an_attempt_never_seen_closes_it_and_every_older_one() -> None:
    world = World().boot().running()
    world.stop(5)
    assert phases(world.report()) == {5: CLOSED}
    assert starts(world.say(assign=assign(4))) == []
    assert phases(world.report()) == {4: CLOSED}
    assert starts(world.say(assign=assign(6))) == [6]


def test_an_assignment_of_a_closed_attempt_is_answered_with_its_certificate_again() -> None:
    world = World().boot().running()
    world.stop(5)
    world.report()
    assert world.report() == []
    world.say(assign=assign(5))
    assert phases(world.report()) == {5: CLOSED}


def test_a_newer_attempt_waits_until_the_older_one_is_dead() -> None:
    world = World().boot().running(assign(1))
    done = world.say(assign=assign(2))
    assert [c.run for c in of(done, commands.StopReplica)] == [run(1)]
    assert starts(done) == []
    assert starts(world.stopped(run(1))) == [2]
    assert phases(world.report()) == {1: CLOSED, 2: STARTING}


def test_an_older_attempt_that_arrives_late_never_starts() -> None:
    world = World().boot().running(assign(5))
    assert starts(world.say(assign=assign(3))) == []
    assert phases(world.report()) == {3: CLOSED}
    world.stop(5)
    assert starts(world.stopped(run(5))) == []


def test_an_attempt_superseded_before_it_started_never_starts() -> None:
    world = World().boot().running(assign(1))
    world.say(assign=assign(2))
    world.say(assign=assign(3))
    assert starts(world.stopped(run(1))) == [3]
    assert phases(world.report()) == {1: CLOSED, 2: CLOSED, 3: STARTING}


def test_commands_of_a_lower_term_epoch_or_life_are_refused() -> None:
    world = World().boot()
    world.connect(term=5)
    world.sync(term=5)
    for stale in (token(1, term=4), token(1, term=9, epoch=0), token(1, term=9, life=0)):
        message = assign()
        message.token.CopyFrom(stale)
        world.say(assign=message)
        world.say(stop=agent_pb2.Stop(token=stale, slot=message.slot))
        assert world.report() == []
    assert starts(world.say(assign=assign(1, term=5))) == [1]


def test_a_stale_leader_is_left_also_after_a_restart() -> None:
    world = World().boot()
    world.connect(term=5)
    after = World().boot(world.saved)
    done = after.connect(term=4)
    assert [c.session for c in of(done, commands.Reconnect)] == [1]
    hello = of(done, commands.SendUp)[0].message.hello
    assert (hello.highest_term, hello.incarnation) == (5, 7)


def test_what_sync_does_not_list_is_stopped_then_certified() -> None:
    world = World().boot().running(assign(1), assign(1, OTHER))
    world.connect()
    done = world.sync(assign(1))
    assert [c.run for c in of(done, commands.StopReplica)] == [run(1, OTHER)]
    world.stopped(run(1, OTHER))
    assert phases(world.report())[1] == CLOSED


def test_only_the_first_sync_of_a_session_counts() -> None:
    world = World().boot().running(assign(1))
    assert of(world.sync(), commands.StopReplica) == []


def test_a_restored_store_does_not_stop_work_of_its_earlier_life() -> None:
    world = World().boot().running(assign(1))
    world.connect(life=2)
    assert of(world.sync(), commands.StopReplica) == []
    message = agent_pb2.Stop(token=token(1, life=2), slot=run().slot.to_proto())
    assert [c.run for c in of(world.say(stop=message), commands.StopReplica)] == [run()]


def test_messages_of_an_earlier_session_are_ignored() -> None:
    world = World().boot().running(assign(1))
    old = world.session
    world.connect()
    stop = agent_pb2.RegionMessage(stop=agent_pb2.Stop(token=token(1), slot=run().slot.to_proto()))
    assert world.post(events.RegionSaid(old, stop)) == []


def test_a_certificate_is_kept_until_a_sync_no_longer_lists_its_attempt() -> None:
    world = World().boot().running()
    world.stop(5)
    for listed in ((assign(5),), (), ()):
        done = world.connect()
        expected = {} if world.session == 4 else {5: CLOSED}
        assert phases(statuses(done)) == expected
        world.sync(*listed)


def test_closed_marks_survive_a_crash() -> None:
    world = World().boot().running()
    world.stop(5)
    after = World().boot(world.saved)
    assert phases(statuses(after.connect())) == {5: CLOSED}
    assert starts(after.sync(assign(5))) == []
    assert starts(after.say(assign=assign(6))) == [6]


def test_found_runs_are_adopted_and_kept_by_a_sync_that_lists_them() -> None:
    world = World().boot().running(assign(1))
    after = World().boot(world.saved, (Found(run(), None, 5),))
    assert phases(statuses(after.connect())) == {1: RUNNING}
    assert of(after.sync(assign(1)), commands.StopReplica) == []
    assert starts(after.wait(1000)) == []


def test_found_runs_without_a_record_wait_for_the_sync() -> None:
    world = World().boot(None, (Found(run(2), None, 5),))
    (status,) = statuses(world.connect())
    assert (status.phase, status.generation) == (RUNNING, 0)
    assert starts(world.sync(assign(2))) == []
    assert world.report()[0].generation == 2


def test_a_found_run_that_is_newer_than_the_listed_one_closes_both() -> None:
    world = World().boot(None, (Found(run(7), None, 5),))
    world.connect()
    done = world.sync(assign(5))
    assert [c.run for c in of(done, commands.StopReplica)] == [run(7)]
    assert starts(world.stopped(run(7))) == []
    assert phases(world.report()) == {5: CLOSED, 7: CLOSED}


def test_a_found_run_that_is_closed_already_is_stopped_at_once() -> None:
    world = World().boot().running(assign(1))
    world.stop(1)
    after = World()
    done = after.machine.handle(events.Booted(world.saved, 7, (Found(run(), None, 5),), None), after.now_ms)
    assert [c.run for c in of(done, commands.StopReplica)] == [run()]


def test_a_job_that_ended_while_no_agent_ran_is_completed() -> None:
    world = World().boot().running(assign(1, job=True))
    after = World().boot(world.saved, (Found(run(), Exit(0, "Completed"), 5),))
    (status,) = statuses(after.connect())
    assert (status.phase, status.exit.reason) == (CLOSED, "Completed")


def test_restarts_pause_longer_each_time_and_end_at_the_limit() -> None:
    policy = objects_pb2.RestartPolicy(local_limit=2, backoff_ms=100, backoff_max_ms=150)
    world = World().boot().running(assign(task=objects_pb2.Task(command=["x"], restart=policy)))
    for pause_ms in (100, 150):  # give or take a quarter
        assert starts(world.exited(3)) == []
        assert phases(world.report()) == {1: BACKOFF}
        assert starts(world.wait(pause_ms * 3 // 4 - 21)) == []
        assert starts(world.wait(pause_ms // 2 + 1)) == [1]
        world.post(events.DriverStarted(run()))
    world.exited(3)
    (status,) = world.report()
    assert (status.phase, status.exit.code, status.restarts) == (CLOSED, 3, 2)


def test_exit_policies() -> None:
    never = objects_pb2.RestartPolicy(mode=objects_pb2.RESTART_MODE_NEVER)
    on_failure = objects_pb2.RestartPolicy(mode=objects_pb2.RESTART_MODE_ON_FAILURE)
    table = [
        (True, None, 0, CLOSED),
        (True, None, 1, BACKOFF),
        (False, None, 0, BACKOFF),
        (False, never, 0, CLOSED),
        (False, never, 1, CLOSED),
        (False, on_failure, 0, CLOSED),
        (False, on_failure, 1, BACKOFF),
    ]
    for job, policy, code, phase in table:
        world = World().boot().running(assign(job=job, task=objects_pb2.Task(command=["x"], restart=policy)))
        world.exited(code)
        assert phases(world.report()) == {1: phase}, (job, policy, code)


def test_a_start_that_fails_counts_as_a_restart() -> None:
    world = World().boot()
    world.connect()
    world.sync(assign())
    world.post(events.DriverStartFailed(run(), "no such file"))
    (status,) = world.report()
    assert (status.phase, status.exit.reason, status.exit.message) == (BACKOFF, "StartFailed", "no such file")


def test_what_a_start_waits_for_is_told_until_it_is_answered() -> None:
    world = World().boot()
    world.connect()
    world.sync(assign())
    world.post(events.DriverDelayed(run(), "EngineDown: no answer"))
    (status,) = world.report()
    assert (status.phase, status.message) == (STARTING, "EngineDown: no answer")
    world.post(events.DriverStarted(run()))
    (status,) = world.report()
    assert (status.phase, status.message) == (RUNNING, "")


def test_exclusive_work_waits_for_a_lease_and_is_guarded_before_it_starts() -> None:
    world = World().boot()
    done = world.connect() + world.sync(assign(run_class=EXCLUSIVE))
    assert starts(done) == []
    done = world.acknowledge(done)
    kinds = [type(command) for command in done if not isinstance(command, commands.WriteCheckpoint)]
    assert kinds == [commands.Guard, commands.StartReplica]
    assert of(done, commands.Guard)[0].deadlines[0].deadline_ms == world.now_ms + 4000 + 2000


def test_exclusive_work_stops_when_no_heartbeat_is_acknowledged_in_time() -> None:
    world = World().boot().running(assign(1, run_class=EXCLUSIVE), assign(1, OTHER))
    at_ms = world.now_ms - 20  # the report's batching time
    world.post(events.Disconnected(world.session))
    assert of(world.wait(at_ms + 3999 - world.now_ms), commands.StopReplica) == []
    assert [c.run for c in of(world.wait(1), commands.StopReplica)] == [run()]
    done = world.stopped()
    assert of(done, commands.Guard)[0].deadlines == ()
    told = {(s.slot.index, s.phase) for s in statuses(world.connect())}
    assert told == {(0, CLOSED), (1, RUNNING)}


def test_an_answer_before_the_sync_is_no_lease() -> None:
    world = World().boot().running(assign(1, run_class=EXCLUSIVE))
    world.post(events.Disconnected(world.session))
    world.wait(3000)
    done = world.connect()
    world.acknowledge(done)
    assert [c.run for c in of(world.wait(1000), commands.StopReplica)] == [run()]


def test_a_session_without_answers_is_left() -> None:
    world = World().boot().running()
    done = world.wait(5000)
    assert len(of(done, commands.Reconnect)) == 1


def test_a_session_without_a_welcome_is_left() -> None:
    world = World().boot()
    world.post(events.Connected(1))
    assert [c.reason for c in of(world.wait(10_000), commands.Reconnect)] == ["no Welcome in time"]


def test_a_shorter_fence_of_a_new_leader_counts_at_once() -> None:
    world = World().boot().running(assign(1, run_class=EXCLUSIVE))
    world.open()
    world.say(welcome=agent_pb2.Welcome(store_life=1, epoch=1, term=2, heartbeat_ms=1000, fence_after_ms=1000))
    assert [c.run for c in of(world.wait(1000), commands.StopReplica)] == [run()]


def test_what_changes_between_hello_and_sync_is_told_after_it() -> None:
    """The region hears nothing of a session it has not welcomed."""
    world = World().boot().running(assign(1))
    world.open()
    world.exited(1)
    assert world.report() == []
    welcome = agent_pb2.Welcome(store_life=1, epoch=1, term=1, heartbeat_ms=1000, fence_after_ms=4000)
    world.say(welcome=welcome)
    world.sync(assign(1))
    assert phases(world.report()) == {1: BACKOFF}


def test_a_job_that_ends_with_0_because_it_was_stopped_has_not_completed() -> None:
    world = World().boot().running(assign(1, job=True))
    world.stop(1)
    world.post(events.DriverStopped(run(), Exit(0, "Completed", "", world.now_ms)))
    assert [(s.phase, s.exit.reason) for s in world.report()] == [(CLOSED, "Stopped")]


def test_a_certificate_the_sync_still_lists_is_kept() -> None:
    """The region has seen it, and may die before the slot is released."""
    world = World().boot().running(assign(1, job=True))
    world.exited(0)
    world.connect()
    done = world.sync(assign(1, job=True))
    assert starts(done) == []
    (status,) = statuses(world.connect())
    assert (status.phase, status.exit.reason) == (CLOSED, "Completed")
    world.sync()
    assert statuses(world.connect()) == []
