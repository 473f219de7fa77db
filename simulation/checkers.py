"""What must be true of a history at every moment, checked by code that shares nothing with the programs.

At every revision of every store: the auditor's rules over the records (I1, I3, I5, I6, I7, I9), a region's limit is
within what it was granted (X), also between two stores, accepted changes stand (I11, promises.py), no region gives up
work that was not taken away, and none binds what was deleted and closed everywhere (I9). At every start of a run: its
binding was committed before (I7), no other attempt of its slot runs on that node, and none of an exclusive workload
anywhere in the region (I2). What must be true in the end is
in convergence.py.
"""

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from agent.core.runs import RunName
from atoll.api.v1 import objects_pb2
from atoll.audit import Auditor
from atoll.model.resources import NOTHING, Vector, total, vector
from atoll.model.slots import AttemptId, SlotName, attempt_id, slot_name
from atoll.store import keys
from atoll.store.memory_state import MemoryState
from atoll.store.store import Batch, Change
from simulation import recovery
from simulation.jobs import JobChecks
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.node import Node
    from simulation.world import World

ACCOUNTS = (objects_pb2.ACCOUNT_HARD, objects_pb2.ACCOUNT_BURST)
BOUND = objects_pb2.SLOT_STATE_BOUND
Place = tuple[str, SlotName]  # a slot of a region
Purse = tuple[str, str, int]  # region, tenant, account


class Binding(NamedTuple):
    node: str = ""
    uid: str = ""
    exclusive: bool = False


class Checkers:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._bound: dict[tuple[Place, AttemptId], Binding] = {}  # every binding ever
        self._now_bound: dict[Place, tuple[AttemptId, str]] = {}  # attempt and uid
        self._granted: dict[Purse, Vector] = {}  # A
        self._limits: dict[Purse, Vector] = {}  # C
        self.jobs = JobChecks(world)
        self.seen: Counter[str] = Counter()  # what happened, and how often: that the history had it
        self.revisions = 0
        self.bindings = 0

    def watch(self, state: MemoryState) -> None:
        auditor = Auditor()
        state.listen(lambda batch: self._new_revision(batch, auditor))

    # ---- at every revision

    def _new_revision(self, batch: Batch, auditor: Auditor) -> None:
        self.revisions += 1
        auditor.feed(batch)
        if violations := auditor.violations:
            raise Violated(str(violations[0]))
        if batch.changes[0].key.startswith(keys.GLOBAL):
            self._world.promises.look(batch)
            self._world.receiver.look(batch)
        for change in batch.changes:
            self._look_at(change)
        if batch.changes[0].key.startswith(keys.GLOBAL):
            self._world.preemptions.check_leaves()
        else:
            self._world.preemptions.check_nodes()
            for protection in self._world.protection_of.values():
                protection.check()

    def _look_at(self, change: Change) -> None:
        parts = change.key.split(b"/")
        if parts[1] == b"g":
            if parts[2] in (b"policy", b"policy_in_force"):
                self._world.policies.look(change)
            elif parts[2] == b"share":
                self._world.policies.look(change)
                self._world.preemptions.look_at_leave(change)
            elif parts[2] == b"slice":
                self._look_at_grant(change, parts[4].decode(), parts[3].decode())
            elif parts[2] == b"status":
                self.jobs.status(change)
                recovery.look_at_status(self._world, change)
            return
        kind, region = parts[3], parts[2].decode()
        if kind == b"slot":
            self._look_at_slot(region, change)
        elif kind == b"slice" and change.item:
            slice_ = objects_pb2.RegionSlice.FromString(change.item.value)
            self.seen["strict slices"] += slice_.mode == objects_pb2.QUOTA_MODE_STRICT
            for account in ACCOUNTS:
                limits = [vector(limit.limit) for limit in slice_.limits if limit.account == account]
                self._check_limit(self._limits, (region, slice_.tenant, account), total(limits))
            if region in self._world.protection_of:
                self._world.protection_of[region].look_at_slice(slice_)
        elif kind == b"zombie" and region in self._world.protection_of:
            self._world.protection_of[region].look_at_zombie(change)
        elif kind == b"node":
            self._world.placements_of[region].look_at_node(change)
            if region in self._world.protection_of:
                self._world.protection_of[region].look_at_node(change)
            if change.item:
                self._world.operators.look(change)
            else:
                self._world.operators.removals.look(region, change.key.decode().rpartition("/")[2])
        elif kind == b"removed":
            self._world.operators.look_at_removed(change)
        elif kind == b"workload" and change.item:
            share = objects_pb2.Share.FromString(change.item.value)
            self._world.preemptions.look_at_share(region, share)
            self._world.placements_of[region].look_at_share(share)
            self._check_removal(region, share)

    def _check_removal(self, region: str, share: objects_pb2.Share) -> None:
        """A region gives work up only when the global plane has taken it away."""
        metadata = share.metadata
        item = self._world.global_state.get(keys.share(region, metadata.tenant, metadata.name))
        if not share.removed or item is None or item.mod_revision > share.global_revision:
            return
        if not objects_pb2.Share.FromString(item.value).removed:
            raise Violated(f"I11: {region} gives up {metadata.tenant}/{metadata.name}, which nobody has taken away")

    def _look_at_slot(self, region: str, change: Change) -> None:
        item = change.item or change.previous
        assert item is not None
        slot = objects_pb2.Slot.FromString(item.value)
        self.jobs.slot(region, change, slot)
        place, attempt = (region, slot_name(slot.id)), attempt_id(slot.attempt)
        self._world.placements_of[region].look_at_slot(slot if change.item else None, place[1])
        self._world.preemptions.look_at_slot(region, slot if change.item else None, place[1])
        if region in self._world.protection_of:
            self._world.protection_of[region].look_at_slot(slot if change.item else None, place[1])
        if change.item is None or slot.state != BOUND:
            self._now_bound.pop(place, None)
            return
        if slot.uid in self._world.promises.forgotten:
            raise Violated(f"I9: {place} is bound though its workload was deleted and closed everywhere")
        self.seen["bound by burst"] += slot.account == objects_pb2.ACCOUNT_BURST
        self._now_bound[place] = attempt, slot.uid
        self.bindings += 1
        binding = Binding(slot.node, slot.uid, slot.run_class == objects_pb2.RUN_CLASS_EXCLUSIVE)
        first = self._bound.setdefault((place, attempt), binding)
        if first.node != slot.node:
            raise Violated(f"I1: attempt {attempt} of {place} was bound to {first.node} and to {slot.node}")

    def _look_at_grant(self, change: Change, region: str, tenant: str) -> None:
        slice_ = objects_pb2.Slice.FromString(change.item.value) if change.item else objects_pb2.Slice()
        for account in ACCOUNTS:
            parts = [part for part in slice_.accounts if part.account == account]
            amounts = [vector(amount) for part in parts for amount in (part.granted, part.recovery)]
            self._check_limit(self._granted, (region, tenant, account), total(amounts))

    def _check_limit(self, changed: dict[Purse, Vector], of: Purse, amount: Vector) -> None:
        changed[of] = amount
        limit, granted = self._limits.get(of, NOTHING), self._granted.get(of, NOTHING)
        if not limit.fits(granted):
            raise Violated(f"I3 (X): {of[1]} in {of[0]}, account {of[2]}: C = {limit} above A = {granted}")

    def bound_of(self, uid: str) -> str:
        """A slot that is bound for this workload, or nothing."""
        return next((f"{region}:{slot}" for (region, slot), (_, of) in self._now_bound.items() if of == uid), "")

    # ---- at every start

    def started(self, node: "Node", run: RunName) -> None:
        """Legal: an old command obeyed late, while a zombie stands for the attempt. Legal beside another, on
        another node: what is older and was bound as `keep` work, or of a deleted workload that had the same name."""
        place = (node.region, run.slot)
        binding = self._binding(node, run)
        if binding.node != node.name:
            raise Violated(f"I7: {run} started on {node.name}, its binding is on {binding.node or 'no node'}")
        if self._now_bound.get(place, (None, ""))[0] != run.rank.attempt and not self._is_zombie(node, run):
            raise Violated(f"I7: {run} started on {node.name} after its binding had ended")
        if not node.has_on_disk(run):
            raise Violated(f"checkpoint: {run} started on {node.name} before its record was on the disk")
        for other in self._world.nodes_of[node.region]:
            for alive in other.alive_in.get(run.slot, ()):
                if other is node:
                    raise Violated(f"one attempt a node: {run} started on {node.name} while {alive} runs there")
                beside = self._binding(other, alive)
                older = beside if alive.rank < run.rank else binding
                if older.exclusive and beside.uid == binding.uid:
                    raise Violated(f"I2: {run} started on {node.name} while {alive} runs on {other.name}")

    def _binding(self, node: "Node", run: RunName) -> Binding:
        return self._bound.get(((node.region, run.slot), run.rank.attempt), Binding())

    def _is_zombie(self, node: "Node", run: RunName) -> bool:
        root = keys.region_root(node.region)
        key = keys.zombie(root, node.name, run.slot.to_proto(), run.rank.attempt.to_proto())
        return self._world.state_of[node.region].get(key) is not None
