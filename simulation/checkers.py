"""What must be true of a history, checked by code that shares nothing with the programs.

At every revision: the auditor's rules over the records (I1, I3, I5, I6, I7, I9), and the region's limit is within what
it was granted (X). At every start of a run: its binding was committed before (I7), no other attempt of its slot runs on
that node, and none of an exclusive workload anywhere (I2). In the end, once faults have stopped: everything asked for
runs, nothing else does, and what was asked back has come back.
"""

from collections import Counter
from typing import TYPE_CHECKING

from agent.core.runs import RunName
from atoll.api.v1 import objects_pb2
from atoll.audit import Auditor
from atoll.model.resources import Vector, total, vector
from atoll.model.slots import AttemptId, SlotName, attempt_id, slot_name
from atoll.store import keys
from atoll.store.store import Change, prefix_end
from regional.config import CoreSettings
from simulation.author import template_generation

if TYPE_CHECKING:
    from simulation.node import Node
    from simulation.world import World

HARD = objects_pb2.ACCOUNT_HARD
BOUND = objects_pb2.SLOT_STATE_BOUND
ROLLING_DOWN_PERCENT = CoreSettings().rolling_down_percent


class Violated(AssertionError):
    """A rule does not hold. The message names it and says what was seen."""


class Checkers:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._auditor = Auditor()
        self._bound: dict[tuple[SlotName, AttemptId], tuple[str, str]] = {}  # every binding ever: its node and uid
        self._now_bound: dict[SlotName, AttemptId] = {}
        self._exclusive: set[str] = set()  # uids of workloads
        self.revisions = 0
        self.bindings = 0
        world.state.listen(self._new_revision)

    # ---- at every revision

    def _new_revision(self) -> None:
        state = self._world.state
        for batch in state.batches(b"/", state.revision, previous=True):
            self.revisions += 1
            self._auditor.feed(batch)
            if violations := self._auditor.violations:
                raise Violated(str(violations[0]))
            for change in batch.changes:
                self._look_at(change)

    def _look_at(self, change: Change) -> None:
        parts = change.key.split(b"/")
        kind = parts[3] if len(parts) > 3 else b""
        if kind == b"slot":
            self._look_at_slot(change)
        elif kind == b"slice" and change.item:
            self._check_slice(objects_pb2.RegionSlice.FromString(change.item.value))
        elif kind == b"workload" and change.item:
            share = objects_pb2.Share.FromString(change.item.value)
            if share.spec.run_class == objects_pb2.RUN_CLASS_EXCLUSIVE:
                self._exclusive.add(share.metadata.uid)

    def _look_at_slot(self, change: Change) -> None:
        item = change.item or change.previous
        assert item is not None
        slot = objects_pb2.Slot.FromString(item.value)
        name, attempt = slot_name(slot.id), attempt_id(slot.attempt)
        if change.item is None or slot.state != BOUND:
            self._now_bound.pop(name, None)
            return
        self._now_bound[name] = attempt
        self.bindings += 1
        node, _ = self._bound.setdefault((name, attempt), (slot.node, slot.uid))
        if node != slot.node:
            raise Violated(f"I1: attempt {attempt} of {name} was bound to {node} and to {slot.node}")

    def _check_slice(self, slice_: objects_pb2.RegionSlice) -> None:
        granted = self._world.author.granted[slice_.tenant]
        for limit in slice_.limits:
            if limit.account == HARD and not vector(limit.limit).fits(granted):
                raise Violated(f"I3 (X): {slice_.tenant}: C = {vector(limit.limit)} above A = {granted}")

    # ---- at every start

    def started(self, node: "Node", run: RunName) -> None:
        """Legal: an old command obeyed late, while a zombie stands for the attempt. Legal beside it, on other nodes:
        older attempts of `keep` work, and attempts of a deleted workload that had the same name."""
        bound_to, uid = self._binding(run)
        if bound_to != node.name:
            raise Violated(f"I7: {run} started on {node.name}, its binding is on {bound_to or 'no node'}")
        if self._now_bound.get(run.slot) != run.rank.attempt and not self._is_zombie(node, run):
            raise Violated(f"I7: {run} started on {node.name} after its binding had ended")
        if not node.has_on_disk(run):
            raise Violated(f"checkpoint: {run} started on {node.name} before its record was on the disk")
        for other in self._world.nodes if uid in self._exclusive else (node,):
            for alive in other.alive_in.get(run.slot, ()):
                if other is node:
                    raise Violated(f"one attempt a node: {run} started on {node.name} while {alive} runs there")
                if self._binding(alive)[1] == uid:
                    raise Violated(f"I2: {run} started on {node.name} while {alive} runs on {other.name}")

    def _binding(self, run: RunName) -> tuple[str, str]:
        """Node and workload uid."""
        return self._bound.get((run.slot, run.rank.attempt), ("", ""))

    def _is_zombie(self, node: "Node", run: RunName) -> bool:
        key = keys.zombie(self._world.candidates[0].root, node.name, run.slot.to_proto(), run.rank.attempt.to_proto())
        return self._world.state.get(key) is not None

    # ---- in the end

    def converged(self) -> str:
        """What is still missing, or nothing."""
        records = self._slots()
        running = Counter(run.slot for node in self._world.nodes for run in node.alive_runs())
        for (tenant, name), share in sorted(self._world.author.shares.items()):
            if share.removed:
                return f"{tenant}/{name} is removed and not closed"
            for task in share.spec.tasks:
                missing = self._missing(tenant, name, share, task, records, running)
                if missing:
                    return missing
        for slot in sorted(running):
            record = records.get(slot)
            if record is None or record.state != BOUND:
                return f"I7: {slot} runs without a binding"
        return self._not_given_back() or self._left_over()

    def _not_given_back(self) -> str:
        """A has come down to what is wanted or still in use, and the leaders' sums agree with their records."""
        for candidate in self._world.candidates:
            if candidate.machine and candidate.machine.state:
                candidate.machine.state.check()
        author = self._world.author
        for tenant, granted in author.granted.items():
            used = total(
                [vector(s.vector) for n, s in self._slots().items() if n.tenant == tenant and s.state == BOUND]
            )
            if not granted.fits(author.target(tenant).at_least(used)):
                return f"{tenant} keeps {granted} of {author.target(tenant)}, it uses {used}"
        return ""

    def _left_over(self) -> str:
        root = self._world.candidates[0].root
        zombies = self._world.state.range(root + b"zombie/", prefix_end(root + b"zombie/")).items
        return f"{len(zombies)} zombies are left, first {zombies[0].key!r}" if zombies else ""

    def _missing(
        self,
        tenant: str,
        name: str,
        share: objects_pb2.Share,
        task: objects_pb2.Task,
        records: dict[SlotName, objects_pb2.Slot],
        running: "Counter[SlotName]",
    ) -> str:
        """Legal: a slot that no node or quota has room for waits; and an update waits for ever while as many replicas
        as it may take down are down already, because they find no room."""
        request, generation = vector(task.resources.requests), template_generation(task)
        bound = {
            slot: record
            for slot, record in sorted(records.items())
            if (slot.tenant, slot.workload, slot.task) == (tenant, name, task.name) and record.state == BOUND
        }
        down, outdated = task.replicas - len(bound), ""
        if down < 0:
            return f"{name}/{task.name} has {len(bound)} bound, {task.replicas} are wanted"
        if down and self._room(tenant, request):
            return f"{down} of {name}/{task.name} are not bound, and there is room"
        for slot, record in bound.items():
            if record.uid != share.metadata.uid or record.generation < generation:
                outdated = f"{slot} is bound at generation {record.generation}, its template is of {generation}"
            elif running[slot] != 1:
                return f"{slot} is bound to {record.node} and runs {running[slot]} times"
        return outdated if down < max(1, task.replicas * ROLLING_DOWN_PERCENT // 100) else ""

    def _slots(self) -> dict[SlotName, objects_pb2.Slot]:
        found = {}
        root = self._world.candidates[0].root
        for item in self._world.state.range(root + b"slot/", prefix_end(root + b"slot/")).items:
            slot = objects_pb2.Slot.FromString(item.value)
            found[slot_name(slot.id)] = slot
        return found

    def _room(self, tenant: str, request: Vector) -> bool:
        """Some node and the tenant's budget could take one more of these."""
        records = self._slots().values()
        bound = [s for s in records if s.state in (BOUND, objects_pb2.SLOT_STATE_RESERVED)]
        spent = Vector()
        on_node: dict[str, Vector] = {}
        for slot in bound:
            on_node[slot.node] = on_node.get(slot.node, Vector()) + vector(slot.vector)
            if slot.id.tenant == tenant:
                spent += vector(slot.vector)
        if not (spent + request).fits(self._world.author.target(tenant)):
            return False
        return any(
            (on_node.get(node.name, Vector()) + request).fits(vector(node.capacity)) for node in self._world.nodes
        )
