"""Where replicas may run: the labels and devices that nodes have, the rules that tasks draw, and what the rules mean.

The meaning is told one node at a time, by code that shares nothing with the scheduler. Decides what a history asks for;
placements.py checks each binding by it, convergence.py what waits in the end.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from atoll.api.v1 import objects_pb2
from atoll.model.selectors import matches, tolerates

if TYPE_CHECKING:
    from regional.core.machine import Machine
    from simulation.world import World

ZONES, DISKS, MODELS = ("a", "b", "c"), ("ssd", "hdd"), ("T4", "A100")
ZONE, DISK, NODE = "zone", "disk", "node"
DEVICES = (0, 1, 2, 4)  # of a node
WHOLE_MILLI = 1000
IN, NOT_IN = objects_pb2.SELECTOR_OPERATOR_IN, objects_pb2.SELECTOR_OPERATOR_NOT_IN
KEEPS_OFF = (objects_pb2.TAINT_EFFECT_NO_SCHEDULE, objects_pb2.TAINT_EFFECT_NO_EXECUTE)
Named = tuple[str, str]  # tenant and workload


def kept(machines: Iterable["Machine"], share: objects_pb2.Share) -> set[str]:
    """Nodes whose room a leader keeps for what has waited longer (docs/scheduling.md#backfill) and is of no lower
    priority than this: so it may wait though there is room."""
    band = share.spec.priority or objects_pb2.PRIORITY_DEFAULT
    leading = [machine.state for machine in machines if machine.state]
    holds = [(state.table.names, state.hold) for state in leading if state.hold]
    return {names[row] for names, hold in holds if band <= hold.cls.band for row in hold.rows}


def labels(world: "World") -> tuple[objects_pb2.Label, ...]:
    """Of a new node."""
    if not world.shape.features.rules:
        return ()
    rng = world.kernel.random
    return tuple(objects_pb2.Label(key=k, value=rng.choice(v)) for k, v in ((DISK, DISKS), (ZONE, ZONES)))


def devices(world: "World") -> tuple[objects_pb2.Gpu, ...]:
    if not world.shape.features.gpus:
        return ()
    rng = world.kernel.random
    model = rng.choice(MODELS)
    return tuple(objects_pb2.Gpu(number=number, model=model) for number in range(rng.choice(DEVICES)))


def draw(world: "World", task: objects_pb2.Task) -> None:
    """What a task asks of its nodes beside room; nothing when this history has no such features."""
    rng, features = world.kernel.random, world.shape.features
    for field in ("node_selector", "requires", "tolerations", "topology_spread", "colocate_with", "avoid_colocating"):
        task.ClearField(field)
    if features.gpus and rng.random() < 0.5:
        task.resources.requests.gpu_milli = rng.choice([300, 500, WHOLE_MILLI, 2 * WHOLE_MILLI])
        task.gpu_models[:] = rng.choice([[], [], [MODELS[0]]])
    if not features.rules:
        return
    choice = rng.random()
    if choice < 0.15:
        task.node_selector.add(key=DISK, value=rng.choice(DISKS))
    elif choice < 0.3:
        task.requires.add(key=ZONE, operator=rng.choice([IN, NOT_IN]), values=rng.sample(ZONES, rng.choice([1, 2])))
    if rng.random() < 0.3:
        task.topology_spread.add(within=ZONE, max_skew=rng.choice([1, 2]), weight=rng.choice([0, 0, 50]))
    if rng.random() < 0.3:
        others = task.avoid_colocating if rng.random() < 0.6 else task.colocate_with
        within = rng.choice([NODE, ZONE])
        others.add(workload=f"w{rng.randrange(6)}", within=within, weight=rng.choice([0, 0, 50]))
    if rng.random() < 0.3:
        task.tolerations.add(key="broken")


# ---- what it means


class Replica(NamedTuple):
    """One that is reserved or bound."""

    of: Named
    task: str
    node: str


class Ground(NamedTuple):
    """A region as its store has it."""

    nodes: Mapping[str, objects_pb2.Node]
    replicas: Sequence[Replica]
    task_of: Callable[[Named, str], objects_pb2.Task | None]  # as admitted


def labels_of(node: objects_pb2.Node) -> dict[str, str]:
    return {label.key: label.value for label in node.metadata.labels} | {NODE: node.metadata.name}


def refusal(node: objects_pb2.Node, task: objects_pb2.Task) -> str:
    """Why a node takes nothing of a task, whatever room it has; empty when it may."""
    have = labels_of(node)
    if node.state != objects_pb2.NODE_STATE_READY or node.cordoned:
        return "takes no work"
    if taint := untolerated(node, task, KEEPS_OFF):
        return f"has the taint {taint}"
    if any(have.get(label.key) != label.value for label in task.node_selector):
        return "is not selected"
    if not all(matches(requirement, have) for requirement in task.requires):
        return "does not meet what is required"
    models = [gpu.model for gpu in node.gpus if not task.gpu_models or gpu.model in task.gpu_models]
    if len(models) < devices_needed(task.resources.requests.gpu_milli):
        return "has not the GPUs"
    return ""


def untolerated(node: objects_pb2.Node, task: objects_pb2.Task, effects: Sequence[int]) -> str:
    """A taint of one of these effects that the task does not tolerate, or nothing."""
    taints = [taint for taint in node.taints if taint.effect in effects]
    for taint in taints:
        if not any(tolerates(toleration, taint.key, taint.value, taint.effect) for toleration in task.tolerations):
            return taint.key
    return ""


def devices_needed(milli: int) -> int:
    return -(-milli // WHOLE_MILLI)


def left_on_devices(node: objects_pb2.Node, bound: Iterable[objects_pb2.Slot], task: objects_pb2.Task) -> list[int]:
    """Milli of each device that the task may use."""
    left = {gpu.number: WHOLE_MILLI for gpu in node.gpus if not task.gpu_models or gpu.model in task.gpu_models}
    for slot in bound:
        for number in slot.gpus:
            if number in left:
                left[number] -= slot.vector.gpu_milli // len(slot.gpus)
    return list(left.values())


def allows(ground: Ground, node: str, of: Named, task: objects_pb2.Task) -> bool:
    """Whether the hard rules of the task, and those of others about it, let one more of it run there."""
    return not apart(ground, node, of, task) and near(ground, node, of, task) and even(ground, node, of, task)


def apart(ground: Ground, node: str, of: Named, task: objects_pb2.Task, *, mutual: bool = True) -> str:
    """The replica that a hard rule keeps this one away from, or nothing. `mutual`: by the other one's rule, too."""
    for other in ground.replicas:
        if other.of[0] != of[0] or other.node not in ground.nodes:
            continue
        theirs = ground.task_of(other.of, other.task) if mutual else None
        rules = [rule for rule in task.avoid_colocating if rule.workload == other.of[1]]
        rules += [rule for rule in (theirs.avoid_colocating if theirs else ()) if rule.workload == of[1]]
        if any(not rule.weight and _together(ground, node, other.node, rule.within) for rule in rules):
            return f"{other.of[1]}/{other.task} on {other.node}"
    return ""


def near(ground: Ground, node: str, of: Named, task: objects_pb2.Task) -> bool:
    """Whether every workload that it must be near to has a replica there; its own first one founds a place."""
    for rule in task.colocate_with:
        found = [other.node for other in ground.replicas if other.of == (of[0], rule.workload)]
        founds = rule.workload == of[1] and not found
        there = _domain(ground, node, rule.within)
        if not rule.weight and not (there and (founds or any(_together(ground, node, n, rule.within) for n in found))):
            return False
    return True


def even(ground: Ground, node: str, of: Named, task: objects_pb2.Task) -> bool:
    """Whether one more there keeps within the skew, among the domains of all nodes that may take it."""
    for rule in (rule for rule in task.topology_spread if not rule.weight):
        eligible = [name for name, record in ground.nodes.items() if not refusal(record, task)]
        counts = {domain: 0 for name in eligible if (domain := _domain(ground, name, rule.within))}
        for other in _own(ground.replicas, of, task.name):
            if (domain := _domain(ground, other.node, rule.within)) in counts:
                counts[domain] += 1
        here = _domain(ground, node, rule.within)
        if here not in counts or counts[here] + 1 - min(counts.values()) > rule.max_skew:
            return False
    return True


def is_ruled(task: objects_pb2.Task) -> bool:
    return bool(task.topology_spread or task.colocate_with or task.avoid_colocating)


def _own(replicas: Iterable[Replica], of: Named, task: str) -> Iterable[Replica]:
    return (other for other in replicas if (other.of, other.task) == (of, task))


def _domain(ground: Ground, node: str, within: str) -> str:
    record = ground.nodes.get(node)
    return labels_of(record).get(within, "") if record else ""


def _together(ground: Ground, one: str, other: str, within: str) -> bool:
    domain = _domain(ground, one, within)
    return bool(domain) and domain == _domain(ground, other, within)
