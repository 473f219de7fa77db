"""A reign is made as the list is read: the win itself costs nothing that grows with what is stored."""

import sys
from dataclasses import replace
from types import FrameType

import pytest

from atoll.api.v1 import objects_pb2
from global_cp.core import commands, events
from global_cp.core.machine import Machine
from tests.support.global_core import DEFAULTS, GlobalCore, workload

FEW = replace(DEFAULTS, looks_at_once=2, recovery_batch=2, request_keep_ms=10**9)


def calls_of_a_win(monkeypatch: pytest.MonkeyPatch, workloads: int) -> int:
    """Of Python functions, when all but the last record were read before."""
    core, calls, handle = GlobalCore(FEW), [0], Machine.handle
    core.elect()
    core.connect(1)
    core.tenant()
    for number in range(workloads):
        kind = objects_pb2.WORKLOAD_TYPE_JOB if number % 2 else objects_pb2.WORKLOAD_TYPE_SERVICE
        core.apply(workload(f"w{number:03}", 1, type=kind))

    def called(frame: FrameType, what: str, of: object) -> None:
        calls[0] += what == "call"

    def counting(machine: Machine, event: events.Event, now_ms: int) -> list[commands.Command]:
        if not isinstance(event, events.LeadershipWon):
            return handle(machine, event, now_ms)
        handle(machine, events.RecordsRead(event.authority, event.records[:-1]), now_ms)
        won = events.LeadershipWon(event.authority, event.records[-1:], event.revision)
        sys.setprofile(called)
        try:
            return handle(machine, won, now_ms)
        finally:
            sys.setprofile(None)

    core.machine = Machine(FEW)
    with monkeypatch.context() as patch:
        patch.setattr(Machine, "handle", counting)
        core.elect()
    assert len(core.records.workloads) == workloads
    core.pass_time(10_000)
    assert len(core.records.shares) == workloads
    core.clean()
    return calls[0]


def test_a_win_costs_the_same_however_much_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls_of_a_win(monkeypatch, 40) < 1.1 * calls_of_a_win(monkeypatch, 20)
