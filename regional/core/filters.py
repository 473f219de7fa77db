"""Which nodes can take a replica of a scheduling class.

`FILTERS` is the whole list, in the order in which refusals are counted: what a node is first, what it has left last.
A filter is a function `(table, request, rows) → mask`, named by its reason code, with the events that can cure its
refusal; work that no node takes is parked until one of those events. Topology spread, which looks at more than one
node, comes after them: regional/core/topology.py. Plain Python definitions of labels, taints and tolerations are in
atoll.model.selectors; a property test holds both to the same answers.
"""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.model.images import canonical
from atoll.model.resources import DIMENSIONS, Vector, vector
from atoll.model.selectors import spelt, tolerates, whole_number
from atoll.model.strategies import Weights
from regional.core import gpus
from regional.core.node_table import Mask, NodeTable, Rows

_ALWAYS = (objects_pb2.DRIVER_PROCESS, objects_pb2.DRIVER_FAKE)  # of agents that do not say
_GPU = DIMENSIONS.index("gpu_milli")
CULPRITS_SHOWN = 3
HARD_TAINTS = (objects_pb2.TAINT_EFFECT_NO_SCHEDULE, objects_pb2.TAINT_EFFECT_NO_EXECUTE)


class Cure(Enum):
    """Kinds of events that may make room for parked work."""

    NODES = "nodes"  # a node came, became ready, or changed its labels or taints
    RESOURCES = "resources"  # a node has more free than before
    HEADROOM = "headroom"  # the region has more free than before
    PROTECTED = "protected"  # likewise, beside what others have protected
    REPAIR = "repair"  # a replica of the task that has run waits again
    QUOTA = "quota"  # a tenant may charge more than before
    SLICE = "slice"  # a tenant's first slice has come
    REPLICAS = "replicas"  # a replica has left its node, or has come, that a rule of the task counts

    __hash__ = object.__hash__  # each is one object; Enum hashes its name, in Python, whenever a set is asked


@dataclass(frozen=True, slots=True)
class Requirement:
    key: str
    operator: int
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tolerated:
    key: str
    value: str
    effect: int


@dataclass(frozen=True, slots=True)
class Spreading:
    """A rule of topology spread; see regional/core/topology.py."""

    within: str
    max_skew: int
    weight: int  # 0 = hard


@dataclass(frozen=True, slots=True)
class Request:
    """What a class asks of a node. Hashable: classes that ask alike share one row of answers."""

    vector: Vector
    selector: tuple[tuple[str, str], ...] = ()
    requires: tuple[Requirement, ...] = ()
    prefers: tuple[tuple[Requirement, int], ...] = ()
    tolerations: tuple[Tolerated, ...] = ()
    strategy: str = ""
    driver: int = objects_pb2.DRIVER_UNSPECIFIED
    topology: tuple[Spreading, ...] = ()
    gpu_models: tuple[str, ...] = ()
    image: str = ""  # in its canonical spelling; empty = it has none
    weights: Weights = ()  # of scores, by the policy; empty = those that are built in for the strategy


def request_of(task: objects_pb2.Task, strategy: objects_pb2.Strategy | None = None) -> Request:
    """`strategy`: as the policy has it."""
    return Request(
        vector=vector(task.resources.requests),
        selector=tuple(sorted((label.key, label.value) for label in task.node_selector)),
        requires=tuple(map(requirement_of, task.requires)),
        prefers=tuple((requirement_of(p.requirement), p.weight) for p in task.prefers),
        tolerations=tuple(Tolerated(t.key, t.value, t.effect) for t in task.tolerations),
        strategy=strategy.name if strategy else task.strategy,
        driver=task.driver,
        topology=tuple(Spreading(t.within, t.max_skew, t.weight) for t in task.topology_spread),
        gpu_models=tuple(task.gpu_models),
        image=canonical(task.image) if task.image else "",
        weights=tuple((one.score, one.weight) for one in strategy.weights) if strategy else (),
    )


def requirement_of(message: objects_pb2.LabelRequirement) -> Requirement:
    return Requirement(message.key, message.operator, tuple(message.values))


@dataclass(frozen=True, slots=True)
class Filter:
    code: str
    passes: Callable[[NodeTable, Request, Rows], Mask]
    cures: frozenset[Cure]


def _ready(table: NodeTable, request: Request, rows: Rows) -> Mask:
    return table.ready[rows]


def _not_cordoned(table: NodeTable, request: Request, rows: Rows) -> Mask:
    return ~table.cordoned[rows]


def driver_labels(drivers: Collection[int]) -> dict[str, str]:
    """What a node's drivers are in its row: labels that no user can write."""
    return {f"\0driver/{driver}": "offered" for driver in drivers or _ALWAYS}


def _offers_driver(table: NodeTable, request: Request, rows: Rows) -> Mask:
    if request.driver == objects_pb2.DRIVER_UNSPECIFIED:
        return np.ones(len(rows), np.bool_)
    (key,) = driver_labels((request.driver,))
    column = table.label_column(key)
    offered: Mask = column[rows] > 0 if column is not None else np.zeros(len(rows), np.bool_)
    return offered


def _not_resting(table: NodeTable, request: Request, rows: Rows) -> Mask:
    return ~table.resting[rows]


def _fit(table: NodeTable, request: Request, rows: Rows) -> Mask:
    return ~table.unfit[rows]


def _not_kept(table: NodeTable, request: Request, rows: Rows) -> Mask:
    return ~table.kept[rows]


def _selected(table: NodeTable, request: Request, rows: Rows) -> Mask:
    mask = np.ones(len(rows), np.bool_)
    for key, value in request.selector:
        mask &= _has(table, key, value, rows)
    return mask


def _has(table: NodeTable, key: str, value: str, rows: Rows) -> Mask:
    column = table.label_column(key)
    if column is None:
        return np.zeros(len(rows), np.bool_)
    mask: Mask = column[rows] == table.value_id(value)
    return mask


def _required(table: NodeTable, request: Request, rows: Rows) -> Mask:
    mask = np.ones(len(rows), np.bool_)
    for requirement in request.requires:
        mask &= satisfied(table, requirement, rows)
    return mask


def satisfied(table: NodeTable, requirement: Requirement, rows: Rows) -> Mask:
    """`selectors.matches`, over columns."""
    column = table.label_column(requirement.key)
    ids = column[rows] if column is not None else np.zeros(len(rows), np.int32)
    match requirement.operator:
        case objects_pb2.SELECTOR_OPERATOR_IN:
            return np.isin(ids, _value_ids(table, requirement))
        case objects_pb2.SELECTOR_OPERATOR_NOT_IN:
            excluded: Mask = ~np.isin(ids, _value_ids(table, requirement))
            return excluded
        case objects_pb2.SELECTOR_OPERATOR_EXISTS:
            present: Mask = ids > 0
            return present
        case objects_pb2.SELECTOR_OPERATOR_DOES_NOT_EXIST:
            without: Mask = ids == 0
            return without
        case objects_pb2.SELECTOR_OPERATOR_GT | objects_pb2.SELECTOR_OPERATOR_LT:
            return _compared(table, requirement, ids)
    return np.zeros(len(rows), np.bool_)


def _value_ids(table: NodeTable, requirement: Requirement) -> npt.NDArray[np.int32]:
    return np.array([table.value_id(value) for value in requirement.values], np.int32)


def _compared(table: NodeTable, requirement: Requirement, ids: npt.NDArray[np.int32]) -> Mask:
    bound = whole_number(requirement.values[0])
    greater = requirement.operator == objects_pb2.SELECTOR_OPERATOR_GT
    distinct, positions = np.unique(ids, return_inverse=True)
    verdicts = np.zeros(len(distinct), np.bool_)
    for position, value_id in enumerate(distinct.tolist()):
        found = whole_number(table.values[value_id])
        if found is not None and bound is not None:
            verdicts[position] = found > bound if greater else found < bound
    verdict: Mask = verdicts[positions]
    return verdict


def _tolerated(table: NodeTable, request: Request, rows: Rows) -> Mask:
    verdicts = np.array([not untolerated(s, request, HARD_TAINTS) for s in table.taint_sets], np.bool_)
    tolerated: Mask = verdicts[table.taint_set[rows]]
    return tolerated


def untolerated(taints: tuple[tuple[str, str, int], ...], request: Request, effects: tuple[int, ...]) -> int:
    """How many of a node's taints with one of `effects` the class does not tolerate."""
    tolerations = [
        objects_pb2.Toleration(key=t.key, value=t.value, effect=objects_pb2.TaintEffect.ValueType(t.effect))
        for t in request.tolerations
    ]
    return sum(
        effect in effects and not any(tolerates(t, key, value, effect) for t in tolerations)
        for key, value, effect in taints
    )


def _enough(dimension: int) -> Callable[[NodeTable, Request, Rows], Mask]:
    def passes(table: NodeTable, request: Request, rows: Rows) -> Mask:
        amount = request.vector.amounts()[dimension]
        if not amount:
            return np.ones(len(rows), np.bool_)
        return missing(table, request, rows, dimension) <= 0

    return passes


def missing(table: NodeTable, request: Request, rows: Rows, dimension: int) -> npt.NDArray[np.int64]:
    """What each node lacks in one dimension; zero or less when there is enough. GPUs are asked for by device."""
    if dimension == _GPU:
        return gpus.missing(table, request, rows)
    free = table.capacity[rows, dimension] - table.used[rows, dimension]
    if table.overcommitted:
        free = np.minimum(free, table.largest[rows, dimension])
    lacking: npt.NDArray[np.int64] = request.vector.amounts()[dimension] - free
    return lacking


def culprits(table: NodeTable, request: Request, rows: Rows, code: str) -> str:
    """Which of the class's demands these nodes do not meet, or which of their taints it does not tolerate, the most
    frequent first: `disk=ssd`, or `disk=ssd (40 nodes), zone in (a,b) (2 nodes)`. Empty for other filters."""
    found: Counter[str] = Counter()
    match code:
        case explain.NODE_UNFIT:
            found.update(table.unfit_words[row] for row in rows.tolist())
        case explain.NODE_SELECTOR:
            for key, value in request.selector:
                found[f"{key}={value}"] = int((~_has(table, key, value, rows)).sum())
        case explain.NODE_REQUIREMENT:
            for requirement in request.requires:
                found[spelt(requirement)] = int((~satisfied(table, requirement, rows)).sum())
        case explain.GPU_MODEL:
            found[" or ".join(request.gpu_models)] = len(rows)
        case explain.TAINT:
            for number, nodes in enumerate(np.bincount(table.taint_set[rows]).tolist()):
                for key, value, effect in table.taint_sets[number] if nodes else ():
                    if untolerated(((key, value, effect),), request, HARD_TAINTS):
                        found[f"{key}={value}" if value else key] += nodes
    shown = [(text, nodes) for text, nodes in found.most_common(CULPRITS_SHOWN) if nodes]
    if len(shown) == 1:
        return shown[0][0]
    return ", ".join(f"{text} ({explain.counted(nodes, 'node')})" for text, nodes in shown)


_NODES = frozenset({Cure.NODES})
_RESOURCES = frozenset({Cure.NODES, Cure.RESOURCES})

FILTERS: tuple[Filter, ...] = (
    Filter(explain.NODE_NOT_READY, _ready, _NODES),
    Filter(explain.NODE_CORDONED, _not_cordoned, _NODES),
    Filter(explain.NODE_RESTING, _not_resting, _NODES),
    Filter(explain.ROOM_KEPT, _not_kept, _NODES),
    Filter(explain.NODE_UNFIT, _fit, _NODES),
    Filter(explain.DRIVER_MISSING, _offers_driver, _NODES),
    Filter(explain.NODE_SELECTOR, _selected, _NODES),
    Filter(explain.NODE_REQUIREMENT, _required, _NODES),
    Filter(explain.TAINT, _tolerated, _NODES),
    Filter(explain.GPU_MODEL, gpus.has_model, _NODES),
    *(Filter(explain.INSUFFICIENT[name], _enough(i), _RESOURCES) for i, name in enumerate(DIMENSIONS)),
)
FIRST_OF_ROOM = len(FILTERS) - len(DIMENSIONS)  # filters from here on ask only for room
