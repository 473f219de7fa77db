"""What must be true of every new reservation or binding, by the records at its revision.

The node takes work (ready, not cordoned, no taint that is not tolerated), has the labels and devices that the task
asks for, and holds no replica that a hard rule of the task keeps it away from; no device is given twice. Legal: a
binding beside one whose own rule came into force while this one was under way; rules move nothing that is bound.
"""

from collections import Counter
from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2
from atoll.model.slots import SlotName
from atoll.store.store import Change
from simulation import rules
from simulation.rules import Ground, Named, Replica
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.world import World

CHARGED = (objects_pb2.SLOT_STATE_RESERVED, objects_pb2.SLOT_STATE_BOUND)


class Placements:
    """One region's."""

    def __init__(self, world: "World") -> None:
        self._seen = world.checkers.seen
        self._nodes: dict[str, objects_pb2.Node] = {}
        self._shares: dict[Named, objects_pb2.Share] = {}
        self._charged: dict[SlotName, objects_pb2.Slot] = {}
        self._devices: Counter[tuple[str, int]] = Counter()  # milli given, by node and device

    def look_at_node(self, change: Change) -> None:
        name = change.key.decode().rpartition("/")[2]
        self._nodes.pop(name, None)
        if change.item:
            self._nodes[name] = objects_pb2.Node.FromString(change.item.value)

    def look_at_share(self, share: objects_pb2.Share) -> None:
        """As the region has admitted it."""
        self._shares[share.metadata.tenant, share.metadata.name] = share

    def look_at_slot(self, slot: objects_pb2.Slot | None, name: SlotName) -> None:
        before = self._charged.pop(name, None)
        if before is not None:
            self._give(before, -1)
        if slot is None or slot.state not in CHARGED:
            return
        if before is None or before.attempt != slot.attempt:
            self._check(slot, name)
        self._charged[name] = slot
        self._give(slot, 1)

    def on(self, node: str) -> str:
        """A slot that is reserved or bound there, or nothing."""
        return next((str(name) for name, slot in self._charged.items() if slot.node == node), "")

    def _check(self, slot: objects_pb2.Slot, name: SlotName) -> None:
        of = (name.tenant, name.workload)
        task = self._task(of, name.task, slot.generation)
        node = self._nodes.get(slot.node)
        if node is None:
            raise Violated(f"placement: {name} is bound to {slot.node}, which does not exist")
        if task is None:
            return
        if reason := rules.refusal(node, task):
            raise Violated(f"placement: {name} is bound to {slot.node}, which {reason}")
        if other := task.avoid_colocating and rules.apart(self._ground(), slot.node, of, task, mutual=False):
            raise Violated(f"placement: {name} is bound to {slot.node}, and has to be apart from {other}")
        if len(slot.gpus) != rules.devices_needed(slot.vector.gpu_milli):
            raise Violated(f"placement: {name} is bound with {len(slot.gpus)} GPUs for {slot.vector.gpu_milli} milli")
        self._seen["gangs reserved"] += slot.reservation.gang
        self._seen["bound beside rules"] += rules.is_ruled(task)
        self._seen["bound with GPUs"] += bool(slot.gpus)
        self._seen["bound with a part of a GPU"] += 0 < slot.vector.gpu_milli < rules.WHOLE_MILLI

    def _give(self, slot: objects_pb2.Slot, sign: int) -> None:
        if slot.state != objects_pb2.SLOT_STATE_BOUND:
            return  # a preemptor's are those of its victims, until these have gone
        for number in slot.gpus:
            device = (slot.node, number)
            self._devices[device] += sign * slot.vector.gpu_milli // len(slot.gpus)
            if self._devices[device] > rules.WHOLE_MILLI:
                raise Violated(f"placement: GPU {number} of {slot.node} is given {self._devices[device]} milli")

    def _ground(self) -> Ground:
        replicas = [Replica((n.tenant, n.workload), n.task, slot.node) for n, slot in self._charged.items()]
        return Ground(self._nodes, replicas, self._task)

    def _task(self, of: Named, task: str, generation: int = 0) -> objects_pb2.Task | None:
        share = self._shares.get(of)
        if share is None or (generation and share.metadata.generation != generation):
            return None
        return next((one for one in share.spec.tasks if one.name == task), None)
