"""The museum's second room: naive versions of what the global plane does, and of what a region does without it.

They join the list of mutants.py, so MUTANTS here are those of both rooms.
"""

from dataclasses import replace
from typing import Any

import pytest

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.lane import Committed, Plan, Rejected, Settled
from atoll.model.resources import Vector
from global_cp.core import budgets, entitlements, events, mutations, spread, transactions
from global_cp.core.budgets import Budgets
from global_cp.core.purse import Purse
from global_cp.core.records import Table
from global_cp.core.regions import Regions
from global_cp.core.reign import Reign
from global_cp.core.requests import Requests
from global_cp.core.shares import Shares
from regional.core import binding, global_plane, machine, node_life, shares, surging
from regional.core.state import State
from simulation import services
from tests.simulation.mutants import MUTANTS as MUTANTS
from tests.simulation.mutants import mutant

# ---- promises


@mutant("I11", regions=2)
def request_ids_are_not_recorded(patch: pytest.MonkeyPatch) -> None:
    with_request = transactions._with_request

    def without(*args: Any) -> Plan:
        plan = with_request(*args)
        return Plan(plan.operation, plan.compares, plan.writes[:-1])

    patch.setattr(transactions, "_with_request", without)


@mutant("I11", regions=2, global_crash_every_ms=5_000)
def request_ids_are_remembered_by_the_leader_only(patch: pytest.MonkeyPatch) -> None:
    read = Reign.read

    def forget(self: Reign, *args: Any) -> None:
        read(self, *args)
        self.records.requests = Table(objects_pb2.RequestRecord)

    patch.setattr(Reign, "read", forget)


@mutant("I11", regions=2, unknown_before=0.1)
def a_change_is_answered_whatever_became_of_it(patch: pytest.MonkeyPatch) -> None:
    settled_ = Requests.settled

    def settled(self: Requests, item: object, settled: Settled, out: Any) -> None:
        if isinstance(settled, Rejected):
            settled = Committed(self._records.revision)
        settled_(self, item, settled, out)

    patch.setattr(Requests, "settled", settled)


@mutant("I11", regions=2)
def a_deleted_workload_may_be_applied_again_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(mutations, "stale", lambda before, if_generation: None)


@mutant("I7", regions=2)
def a_workload_is_forgotten_before_it_is_closed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Shares, "_is_closed", lambda self, share: share.removed)


@mutant("not converged", "I9", regions=2, stale_share=0.8)
def shares_without_order(patch: pytest.MonkeyPatch) -> None:
    arrived: list[int] = []

    def later_than_ever(share: objects_pb2.Share) -> tuple[int, int, int]:
        arrived.append(1)
        return (0, 0, len(arrived))

    patch.setattr(shares, "_order", later_than_ever)


# ---- escrow


@mutant("I3", regions=2)
def a_grant_leaves_the_free_budget_as_it_was(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Purse, "paid", lambda self, amount: self)


@mutant(
    "I3",
    message_delay_ms=2_000,
    session_stall_every_ms=1_500,
    session_break_every_ms=0,
    store_cut_every_ms=0,
    leader_crash_every_ms=0,
    global_crash_every_ms=0,
    global_absence_every_ms=0,
)
def a_stale_acknowledgement_takes_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(budgets, "is_current", lambda ack, slice_: slice_ is not None)


@mutant("I3", regions=2)
def a_shrink_takes_back_at_once(patch: pytest.MonkeyPatch) -> None:
    """What is above the target is free again before the region has heard of it."""
    slice_step = Budgets._slice_step

    def at_once(self: Budgets, tenant: Any, region: Any, current: Any, entitled: Any, *rest: Any) -> Any:
        if current is not None and not budgets.granted(current).fits(budgets.shrink_target(current)):
            use = objects_pb2.AccountUse(
                account=objects_pb2.ACCOUNT_HARD, limit=budgets.shrink_target(current).hard.to_proto()
            )
            ack = objects_pb2.SliceAck(
                tenant=current.tenant, region=current.region, epoch=current.epoch, seq=current.seq, uses=[use]
            )
            self._heard[current.tenant, current.region] = ack
            self._acks[current.tenant, current.region] = None
        return slice_step(self, tenant, region, current, entitled, *rest)

    patch.setattr(Budgets, "_slice_step", at_once)


@mutant("keeps", regions=2)
def idle_slices_never_come_back(patch: pytest.MonkeyPatch) -> None:
    divided = entitlements.entitlements

    def at_least_as_now(quota: Vector, claims: Any) -> Any:
        return divided(quota, {r: c._replace(needed=c.needed.at_least(c.granted)) for r, c in claims.items()})

    patch.setattr(entitlements, "entitlements", at_least_as_now)


# ---- a region and its global plane


@mutant("I6", "I9", global_cut_every_ms=15_000, session_break_every_ms=500)
def a_deposed_global_leader_is_listened_to(patch: pytest.MonkeyPatch) -> None:
    """It does not see from the hello that it was deposed, nor the region from the welcome."""
    connected, welcomed = Regions.connected, global_plane._welcomed

    def unseen(self: Regions, event: events.RegionConnected, out: Any) -> None:
        hello = regional_pb2.RegionHello()
        hello.CopyFrom(event.hello)
        hello.ClearField("heard")
        connected(self, replace(event, hello=hello), out)

    def whoever(state: State, event: Any, turn: Any) -> None:
        state.heard = (0, 0)
        welcomed(state, event, turn)

    patch.setattr(Regions, "connected", unseen)
    patch.setattr(global_plane, "_welcomed", whoever)


# ---- a region by itself


@mutant("without the global plane", regions=2)
def nothing_is_bound_while_the_global_plane_is_away(patch: pytest.MonkeyPatch) -> None:
    next_bind = binding.next_bind

    def with_uplink_only(state: Any, lane: int, turn: Any) -> Any:
        return next_bind(state, lane, turn) if state.uplink else None

    turns = {
        kept: tuple(with_uplink_only if s is next_bind else s for s in machine._TURNS[kept]) for kept in machine._TURNS
    }
    patch.setattr(machine, "_TURNS", turns)


@mutant("I11", regions=2)
def work_is_given_up_when_the_global_plane_is_lost(patch: pytest.MonkeyPatch) -> None:
    dispatch = machine.Machine._dispatch

    def give_up(self: machine.Machine, state: Any, event: Any, turn: Any) -> None:
        dispatch(self, state, event, turn)
        if type(event).__name__ == "GlobalLost":
            for workload in list(state.workloads.values()):
                gone = objects_pb2.Share()
                gone.CopyFrom(workload.share)
                gone.removed = True
                gone.global_revision += 1
                shares.note(state, gone)

    patch.setattr(machine.Machine, "_dispatch", give_up)


# ---- operators


@mutant("I11", node_isolation_every_ms=5_000, session_break_every_ms=3_000)
def a_hello_undoes_what_operators_said(patch: pytest.MonkeyPatch) -> None:
    described = node_life._described

    def anew(*args: Any) -> objects_pb2.Node:
        record = described(*args)
        record.cordoned = record.draining = False
        record.ClearField("drain")
        return record

    patch.setattr(node_life, "_described", anew)


@mutant("are wanted", "is not told", "bound", events=10_000, operator_every_ms=2_000)
def a_surge_takes_nobodys_place(patch: pytest.MonkeyPatch) -> None:
    """It is one of those wanted, and so is what it was made for, elsewhere."""
    patch.setattr(services, "GANGS", 0)  # they are never moved so
    patch.setattr(surging, "take_over", lambda state, task, new, old: task.surges.pop(new))


@mutant("residency", events=8_000, regions=3, jobs=False)
def residency_counts_at_admission_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(spread, "meets", lambda residency, region: True)
