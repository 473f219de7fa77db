"""The sums that hold between any two events: what a leader keeps by differences equals what its records say."""

from collections import Counter
from typing import TYPE_CHECKING

from atoll.errors import require
from atoll.model.accounts import BURST, summed
from atoll.model.resources import Vector, vector
from regional.core.gpus import WHOLE_MILLI

if TYPE_CHECKING:
    from regional.core.records import NodeEntry
    from regional.core.state import State


def _on_devices(node: "NodeEntry") -> Counter[int]:
    """What bound replicas and zombies hold; what is reserved may wait for room on them."""
    held: Counter[int] = Counter()
    slots, zombies = [e.record for e in node.slots.values()], [z.record for z in node.zombies.values()]
    for gpus, amount in [(r.gpus, r.vector) for r in slots] + [(r.gpus, r.vector) for r in zombies]:
        for number in gpus:
            held[number] += amount.gpu_milli // len(gpus)
    return held


def check_sums(state: "State") -> None:
    state.neighbours.check()
    state.demand.check(state.workloads)
    require((state.table.capacity.sum(axis=0) == state.table.total).all(), "I3: the total is all nodes' capacity")
    for node in state.nodes.values():
        held = [entry.vector for entry in (*node.slots.values(), *node.reserved.values())]
        held += [b.vector for b in state.planned_on(node.name)]
        held += [vector(z.record.vector) for z in node.zombies.values()]
        used = Vector(*state.table.used[node.row].tolist())
        flying = Vector()
        for operation in state.in_flight.values():
            flying += operation.charged_to(node.name)
        require(sum(held, flying) == used, f"I3: node {node.name} is charged for what it holds")
        on_gpus = sum(state.table.gpus.used(node.row).values())
        require(on_gpus == used.gpu_milli, f"I3: the GPUs of node {node.name} are charged for what it holds")
        for number, milli in _on_devices(node).items():
            require(milli <= WHOLE_MILLI, f"I3: GPU {number} of node {node.name} gives at most {WHOLE_MILLI} milli")
    burst = Vector()
    for tenant, account in state.accounts.items():
        slots = [e for (t, _), w in state.workloads.items() if t == tenant for e in w.entries()]
        bound, reserved = (summed(e.charge for e in slots if getattr(e, x)) for x in ("bound", "reserved"))
        burst += (bound + reserved).burst
        require((bound, reserved) == (account.bound, account.reserved), f"I3: U and V of {tenant}")
        account.check()
    require(burst == state.burst, "I3: what burst accounts pay for")
    for node in state.nodes.values():
        bursting = {key: entry for key, entry in node.slots.items() if entry.account == BURST}
        require(bursting == node.burst, f"I3: what node {node.name} holds of burst accounts")
