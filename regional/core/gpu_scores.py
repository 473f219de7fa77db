"""Scores that look at each GPU of a node, and the devices that go with them.

`fgd` is fragmentation gradient descent (Weng et al., USENIX ATC 2023): the node, and the device, where a placement adds
least to what typical requests can no longer use. `expected-fill` asks instead how much of what is left will be filled
by what typically comes, and how that changes: a device with 190 milli left is nearly lost when hardly anybody asks for
so little, one with 530 left is not when many ask for 470. Processors count for each device by its part of what is left:
`CPU_SHARE` times as much as an even distribution would give it.

`gpu-best-fit`, `dot-product`, `gpu-packing` and `gpu-clustering` are the policies that the paper compares with, by its
formulas. Rounding belongs to all of them: nodes that are nearly alike are taken in the order of their rows, which keeps
others free; random ties cost some points of packing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from atoll.model import strategies
from atoll.model.resources import DIMENSIONS
from regional.core import gpus
from regional.core.gpus import WHOLE_MILLI

if TYPE_CHECKING:
    from regional.core.filters import Request
    from regional.core.node_table import Integers, Mask, NodeTable, Rows, Scores

CPU_SHARE = 2
FILL_STEP_MILLI = 20  # differences below it are none
FILL_RANGE_MILLI = 128_000  # gains of a node with 64 devices are within half of it
_CPU, _GPU = DIMENSIONS.index("cpu_milli"), DIMENSIONS.index("gpu_milli")
_ROWS_AT_ONCE = 4_096
_LEAST_LEFT = 1e-6  # a milli in a comparison of devices: too little to count between nodes
_ROUNDED = 0.01  # what a thousand of those are less than

Floats = npt.NDArray[np.float64]
Copies = npt.NDArray[np.int32]


class Nodes(NamedTuple):
    """Some nodes as one score sees them."""

    cpu_left: "Integers"  # (rows)
    left: "Integers"  # (rows, numbers)
    model: npt.NDArray[np.int32]  # (rows, numbers)
    usable: "Mask"  # (rows, numbers): of a model that the request takes
    held: npt.NDArray[np.int64]  # (rows, sorts): replicas by how many devices they hold


# What one more replica makes of nodes: its gain (rows); when it asks for a part of a device, of each (rows, numbers).
Gain = Callable[["NodeTable", "Request", Nodes], Floats]


def fgd(table: "NodeTable", request: "Request", rows: "Rows", used: "Integers", copies: Copies) -> "Scores":
    gain = _over_steps(table, request, rows, used, _less_fragmentation)
    score: Scores = (np.floor(100 / (1 + np.exp(-gain / 1000))) / 100).astype(np.float32)
    return score


def expected_fill(table: "NodeTable", request: "Request", rows: "Rows", used: "Integers", copies: Copies) -> "Scores":
    gain = _over_steps(table, request, rows, used, _more_fill)
    steps = np.floor(gain / FILL_STEP_MILLI + 1e-9) * FILL_STEP_MILLI
    score: Scores = np.clip(0.5 + steps / FILL_RANGE_MILLI, 0, 1).astype(np.float32)
    return score


def _nodes(table: "NodeTable", request: "Request", rows: "Rows", cpu_left: "Integers") -> Nodes:
    left, model = np.maximum(table.gpus.left[rows], 0), table.gpus.model[rows]
    usable = gpus.usable(table, request, rows) > 0
    return Nodes(cpu_left, left, model, usable, table.gpus.held[rows])


def _over_steps(table: "NodeTable", request: "Request", rows: "Rows", used: "Integers", gain: Gain) -> Floats:
    """The gain of the replica after which a node would hold `used`: shape of `used` without its last axis. Replicas
    that come before it take their devices first."""
    table.typical.know(table.gpus.models)
    if used.ndim == 2 and len(rows) > _ROWS_AT_ONCE:
        parts = range(0, len(rows), _ROWS_AT_ONCE)
        some = [slice(first, first + _ROWS_AT_ONCE) for first in parts]
        return np.concatenate([_over_steps(table, request, rows[s], used[s], gain) for s in some])
    asked = request.vector
    cpu_before = table.capacity[rows, _CPU] - used[..., _CPU] + asked.cpu_milli
    if not asked.gpu_milli:
        steps = [gain(table, request, _nodes(table, request, rows, cpu)) for cpu in np.atleast_2d(cpu_before)]
        return np.stack(steps).reshape(used.shape[:-1])
    more = (used[..., _GPU] - table.used[rows, _GPU]) // asked.gpu_milli  # replicas beyond what is charged
    nodes = _nodes(table, request, rows, table.capacity[rows, _CPU] - table.used[rows, _CPU])
    gains = []
    for _ in range(int(more.max(initial=1))):
        one, taken = _gain_of_node(table, request, nodes, gain)
        gains.append(one)
        held = nodes.held.copy()
        held[:, gpus.sort_of(asked.gpu_milli)] += 1
        nodes = nodes._replace(cpu_left=nodes.cpu_left - asked.cpu_milli, left=nodes.left - taken, held=held)
    by_step = np.stack(gains)
    found: Floats = np.take_along_axis(by_step, np.atleast_2d(more - 1), axis=0).reshape(used.shape[:-1])
    return found


def _gain_of_node(table: "NodeTable", request: "Request", nodes: Nodes, gain: Gain) -> "tuple[Floats, Integers]":
    """(rows), and what is taken from each device (rows, numbers)."""
    asked, gains = request.vector.gpu_milli, gain(table, request, nodes)
    taken = np.zeros_like(nodes.left)
    if gpus.asks_whole(asked):
        return gains, _first_idle(nodes, asked // WHOLE_MILLI) * WHOLE_MILLI
    gains = np.where(nodes.usable & (nodes.left >= asked), gains, -np.inf)
    if not gains.shape[1]:
        return np.zeros(len(gains)), taken
    best, at = gains.argmax(axis=1), np.arange(len(gains))
    found = gains[at, best]
    taken[at, best] = np.where(np.isfinite(found), asked, 0)
    return np.where(np.isfinite(found), found, 0.0), taken


def _first_idle(nodes: Nodes, count: int) -> "Mask":
    idle = nodes.usable & (nodes.left == WHOLE_MILLI)
    first: Mask = idle & (np.cumsum(idle, axis=1) <= count)
    return first


# ---- fragmentation


def _less_fragmentation(table: "NodeTable", request: "Request", nodes: Nodes) -> Floats:
    asked, typical = request.vector.gpu_milli, table.typical
    at = nodes.model.astype(np.int64) * (WHOLE_MILLI + 1) + nodes.left
    fitting, lost, left = typical.fits[at], typical.lost[at], nodes.left.sum(axis=1)
    fits, losses = fitting.sum(axis=1, dtype=np.int64), lost.sum(axis=1, dtype=np.int64)
    parts = typical.parts[typical.level(nodes.cpu_left)]
    before = _fragments(table, parts, fits, losses, left)
    parts = typical.parts[typical.level(nodes.cpu_left - request.vector.cpu_milli)]
    if not asked:
        return before - _fragments(table, parts, fits, losses, left)
    if gpus.asks_whole(asked):
        taken = _first_idle(nodes, asked // WHOLE_MILLI)
        after = np.where(taken, at - WHOLE_MILLI, at)
        fits = typical.fits[after].sum(axis=1, dtype=np.int64)
        losses = typical.lost[after].sum(axis=1, dtype=np.int64)
        return before - _fragments(table, parts, fits, losses, left - asked)
    after = np.where(nodes.left >= asked, at - asked, at)  # each device by itself
    fits_after = fits[:, None] - fitting + typical.fits[after]
    losses_after = losses[:, None] - lost + typical.lost[after]
    return before[:, None] - _fragments(table, parts[:, None], fits_after, losses_after, left[:, None] - asked)


def _fragments(
    table: "NodeTable", parts: Floats, fits: npt.NDArray[np.int64], losses: npt.NDArray[np.int64], left: "Integers"
) -> Floats:
    """Milli that a typical request cannot use: all of them when it cannot run there, or asks for no GPU."""
    can = (fits >= table.typical.needs) * parts
    usable: Floats = (can * (left[..., None] - losses)).sum(axis=-1)
    fragments: Floats = left - usable
    return fragments


# ---- expected fill


def _more_fill(table: "NodeTable", request: "Request", nodes: Nodes) -> Floats:
    asked, left = request.vector.gpu_milli, nodes.left
    before = _fill(table, nodes.model, left, nodes.cpu_left, left.sum(axis=1)).sum(axis=1)
    cpu = nodes.cpu_left - request.vector.cpu_milli
    if not asked or gpus.asks_whole(asked):
        count = asked // WHOLE_MILLI
        after = left - _first_idle(nodes, count) * WHOLE_MILLI if asked else left
        gain: Floats = _fill(table, nodes.model, after, cpu, after.sum(axis=1)).sum(axis=1) - before
        return gain
    total = left.sum(axis=1) - asked
    stays = _fill(table, nodes.model, left, cpu, total)
    cut = _fill(table, nodes.model, np.maximum(left - asked, 0), cpu, total)
    each: Floats = stays.sum(axis=1)[:, None] - stays + cut - before[:, None]
    return each


def _fill(
    table: "NodeTable", model: npt.NDArray[np.int32], left: "Integers", cpu_left: "Integers", total: "Integers"
) -> Floats:
    """What each device will be filled with, in milli: (rows, numbers). `total` is left on all devices of a node."""
    typical = table.typical
    share = CPU_SHARE * cpu_left[:, None] * left // np.maximum(total, 1)[:, None]
    level = typical.level(np.minimum(cpu_left[:, None], share))
    filled: Floats = typical.fill[model, level, left // typical.unit]
    return filled


# ---- the policies that fgd was compared with


def gpu_best_fit(table: "NodeTable", request: "Request", rows: "Rows", used: "Integers", copies: Copies) -> "Scores":
    """Least left, in parts of the largest node."""
    cpu, gpu = _of_largest(table, table.capacity[rows] - used)
    return _hundredths(1 - cpu / 2 - gpu / 2)


def dot_product(table: "NodeTable", request: "Request", rows: "Rows", used: "Integers", copies: Copies) -> "Scores":
    """What is left and what is asked for are least alike (Tetris, turned round for packing)."""
    amounts = np.array(request.vector.amounts(), np.int64)
    cpu, gpu = _of_largest(table, table.capacity[rows] - used + amounts)
    cpu_asked, gpu_asked = _of_largest(table, amounts)
    return _hundredths(1 - (cpu * cpu_asked + gpu * gpu_asked) / 2)


def gpu_packing(table: "NodeTable", request: "Request", rows: "Rows", used: "Integers", copies: Copies) -> "Scores":
    """Devices in use before idle ones, those before whole idle nodes; within each, where least is left."""
    return _hundredths(_over_steps(table, request, rows, used, _packed) / 100)


def _packed(table: "NodeTable", request: "Request", nodes: Nodes) -> Floats:
    asked = request.vector.gpu_milli
    if not asked:
        return np.zeros(len(nodes.left))
    there = (nodes.model > 0).sum(axis=1)
    free_node = (nodes.left == WHOLE_MILLI).sum(axis=1) == there
    on_free_node = np.maximum(33 - there, there)
    if gpus.asks_whole(asked):
        whole: Floats = np.where(free_node, on_free_node, max(50 - asked // WHOLE_MILLI, 33)).astype(np.float64)
        return whole
    shared = np.maximum(100 - nodes.left * 100 // WHOLE_MILLI // 10, 50)
    on_used_node = np.where(nodes.left == WHOLE_MILLI, 49, shared)
    each: Floats = np.where(free_node[:, None], on_free_node[:, None], on_used_node) - nodes.left * _LEAST_LEFT
    return each


def gpu_clustering(table: "NodeTable", request: "Request", rows: "Rows", used: "Integers", copies: Copies) -> "Scores":
    """Beside replicas that hold as many devices, and nobody else; then beside them; then alone; then anywhere."""
    return _hundredths(_over_steps(table, request, rows, used, _clustered) / 100)


def _clustered(table: "NodeTable", request: "Request", nodes: Nodes) -> Floats:
    asked = request.vector.gpu_milli
    if not asked:
        return np.zeros(len(nodes.left))
    alike = nodes.held[:, gpus.sort_of(asked)] > 0
    sorts = (nodes.held > 0).sum(axis=1)
    base = np.where(alike, np.where(sorts == 1, 75, 50), np.where(sorts == 0, 25, 0))
    largest = max(int(table.capacity[: table.size, _GPU].max()), 1)
    value: Floats = (base + 25 * (largest - nodes.left.sum(axis=1)) // largest).astype(np.float64)
    return value if gpus.asks_whole(asked) else value[:, None] - nodes.left * _LEAST_LEFT


def _of_largest(table: "NodeTable", amounts: "Integers") -> tuple[Floats, Floats]:
    largest = np.maximum(table.capacity[: table.size].max(axis=0), 1)
    return amounts[..., _CPU] / largest[_CPU], amounts[..., _GPU] / largest[_GPU]


def _hundredths(value: Floats) -> "Scores":
    score: Scores = (np.floor(np.clip(value, 0, 1) * 100 + _ROUNDED) / 100).astype(np.float32)
    return score


CHOOSING: dict[str, Gain] = {strategies.FGD: _less_fragmentation, strategies.EXPECTED_FILL: _more_fill}
_CHOOSING_SCORES = {strategies.WEIGHTS[name][0][0]: gain for name, gain in CHOOSING.items()}


def _gain(request: "Request") -> Gain | None:
    """By which a device is chosen for a part of one: under a policy by the heaviest of the scores that can."""
    if not request.weights:
        return CHOOSING.get(request.strategy)
    named = [(weight, name) for name, weight in request.weights if name in _CHOOSING_SCORES]
    return _CHOOSING_SCORES[max(named)[1]] if named else None


def take(table: "NodeTable", request: "Request", row: int) -> gpus.Devices:
    """The devices that one more replica on this row gets, charged; none when it asks for none. To be called after the
    row was charged with the replica's sums."""
    return take_all(table, request, row, 1)[0]


def take_all(table: "NodeTable", request: "Request", row: int, count: int) -> list[gpus.Devices]:
    """As `take`, for so many alike, one after the other; the row was charged with the sums of all."""
    asked, taken = request.vector.gpu_milli, list[gpus.Devices]()
    if not asked:
        return [()] * count
    gain = _gain(request)
    if gain and not gpus.asks_whole(asked):
        for others in reversed(range(count)):
            taken.append(_gains_most(table, request, row, gain, others))
            table.charge_gpus(row, taken[-1], asked)
        return taken
    left = gpus.usable(table, request, np.array([row]))[0].tolist()
    for _ in range(count):
        numbers = gpus.choose(left, asked)
        for number in numbers:
            left[number] -= asked // len(numbers)
        table.charge_gpus(row, numbers, asked)
        taken.append(numbers)
    return taken


def _gains_most(table: "NodeTable", request: "Request", row: int, gain: Gain, others: int) -> gpus.Devices:
    """The device for a part of one, where `others` come after it whose sums are charged with its own."""
    table.typical.know(table.gpus.models)
    rows = np.array([row])
    cpu_left = table.capacity[rows, _CPU] - table.used[rows, _CPU] + request.vector.cpu_milli * (1 + others)
    _, taken = _gain_of_node(table, request, _nodes(table, request, rows, cpu_left), gain)
    return tuple(np.flatnonzero(taken[0]).tolist())
