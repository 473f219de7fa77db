"""Which of the feasible nodes is best: scores in [0, 1], and strategies as named weights.

A score is a function of what a node would hold *after* the placement, so one formula serves the first replica on a node
and, with more used, every further one. Shapes: `used` is (..., rows, dimensions), `copies` (..., rows); answers
broadcast against each other. All in float32; ties are broken by row outside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from atoll.api.v1 import objects_pb2
from atoll.model import strategies
from atoll.model.costs import COST_LABEL, cost_per_hour
from regional.core import gpu_scores
from regional.core.filters import Request, satisfied, untolerated
from regional.core.node_table import Integers, NodeTable, Rows, Scores, Values

_HALVINGS = 40  # from 2^20 down to 2^-20 an hour
_GPU_COST = 20  # where each device of a node is looked at
SOFT_TAINTS = (objects_pb2.TAINT_EFFECT_PREFER_NO_SCHEDULE,)


@dataclass(frozen=True, slots=True)
class Score:
    name: str
    value: Callable[[NodeTable, Request, Rows, Integers, npt.NDArray[np.int32]], Scores]


def _fullness(table: NodeTable, request: Request, rows: Rows, used: Integers, copies: npt.NDArray[np.int32]) -> Scores:
    """Mean share in use over the dimensions asked for: packing leaves whole nodes free for large work."""
    asked = [d for d, amount in enumerate(request.vector.amounts()) if amount]
    if not asked:
        return np.zeros(len(rows), np.float32)
    full: Values = np.minimum(used[..., asked[0]] / np.maximum(table.capacity[rows, asked[0]], 1), 1.0)
    for dimension in asked[1:]:
        full += np.minimum(used[..., dimension] / np.maximum(table.capacity[rows, dimension], 1), 1.0)
    full /= len(asked)
    return full.astype(np.float32)


def _emptiness(table: NodeTable, request: Request, rows: Rows, used: Integers, copies: npt.NDArray[np.int32]) -> Scores:
    """The opposite of fullness: room to grow, and a small loss when the node dies."""
    return np.float32(1) - _fullness(table, request, rows, used, copies)


def _tightness(table: NodeTable, request: Request, rows: Rows, used: Integers, copies: npt.NDArray[np.int32]) -> Scores:
    """Mean over the dimensions asked for of 1 / (1 + what is left, in requests): 1 when the last bit is taken. Unlike
    fullness it does not ask how large the node is."""
    asked = [d for d, amount in enumerate(request.vector.amounts()) if amount]
    if not asked:
        return np.zeros(len(rows), np.float32)
    left = np.maximum(table.capacity[rows][:, asked] - used[..., asked], 0)
    amounts = np.array(request.vector.amounts(), np.int64)[asked]
    tight = (amounts / (amounts + left)).mean(axis=-1)
    tightness: Scores = tight.astype(np.float32)
    return tightness


def _looseness(table: NodeTable, request: Request, rows: Rows, used: Integers, copies: npt.NDArray[np.int32]) -> Scores:
    return np.float32(1) - _tightness(table, request, rows, used, copies)


def _evenness(table: NodeTable, request: Request, rows: Rows, used: Integers, copies: npt.NDArray[np.int32]) -> Scores:
    """1 less the distance between the largest and the smallest share in use, over the dimensions asked for: none runs
    out while another lies idle."""
    asked = [d for d, amount in enumerate(request.vector.amounts()) if amount]
    if not asked:
        return np.zeros(len(rows), np.float32)
    share = np.minimum(used[..., asked] / np.maximum(table.capacity[rows][:, asked], 1), 1.0)
    even: Scores = (1 - (share.max(axis=-1) - share.min(axis=-1))).astype(np.float32)
    return even


def _alike(table: NodeTable, request: Request, rows: Rows, used: Integers, copies: npt.NDArray[np.int32]) -> Scores:
    """All nodes are as good: the first one that fits is taken."""
    return np.zeros(len(rows), np.float32)


def _apart(table: NodeTable, request: Request, rows: Rows, used: Integers, copies: npt.NDArray[np.int32]) -> Scores:
    """Few replicas of the same task on one node: 1, 1/2, 1/3 … for 0, 1, 2 … there already."""
    return (1 / (1 + copies)).astype(np.float32)


def _preferred(table: NodeTable, request: Request, rows: Rows, used: Integers, copies: npt.NDArray[np.int32]) -> Scores:
    """The weighted part of `prefers` that the node satisfies."""
    total = sum(weight for _, weight in request.prefers)
    value = np.zeros(len(rows), np.float32)
    for requirement, weight in request.prefers:
        value += np.float32(weight / total) * satisfied(table, requirement, rows)
    return np.minimum(value, np.float32(1))


def _untainted(table: NodeTable, request: Request, rows: Rows, used: Integers, copies: npt.NDArray[np.int32]) -> Scores:
    """1, 1/2, 1/3 … for 0, 1, 2 … prefer-no-schedule taints that are not tolerated."""
    values = [1 / (1 + untolerated(s, request, SOFT_TAINTS)) for s in table.taint_sets]
    by_set = np.array(values, np.float32)
    return by_set[table.taint_set[rows]]


def _warm(table: NodeTable, request: Request, rows: Rows, used: Integers, copies: npt.NDArray[np.int32]) -> Scores:
    """1 where the image is there already: the replica starts without a pull."""
    return table.images.holding(request.image, table.size)[rows].astype(np.float32)


def _cheapness(table: NodeTable, request: Request, rows: Rows, used: Integers, copies: npt.NDArray[np.int32]) -> Scores:
    """By the logarithm of what the request's part of the node costs an hour, its largest part in any dimension: each
    halving is worth a fortieth, whatever the currency. 1: it costs nothing; 0: nobody says what it costs."""
    column = table.label_column(COST_LABEL)
    if column is None:
        return np.zeros(len(rows), np.float32)
    said, which = np.unique(column[rows], return_inverse=True)
    prices = [cost_per_hour(table.values[value]) for value in said.tolist()]
    price = np.array([np.nan if one is None else one for one in prices])[which.reshape(-1)]
    asked = np.array(request.vector.amounts(), np.int64)
    part = np.minimum(asked / np.maximum(table.capacity[rows], 1), 1.0).max(axis=1)
    cost = price * part
    halvings = 0.5 - np.log2(np.where(cost > 0, cost, 1.0)) / _HALVINGS
    cheap = np.where(cost > 0, halvings, np.where(np.isnan(cost), 0.0, 1.0))
    return np.clip(cheap, 0.0, 1.0).astype(np.float32)


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score("fullness", _fullness),
        Score("emptiness", _emptiness),
        Score("apart", _apart),
        Score("preferred", _preferred),
        Score("untainted", _untainted),
        Score("warm", _warm),
        Score("cheapness", _cheapness),
        Score("tightness", _tightness),
        Score("looseness", _looseness),
        Score("evenness", _evenness),
        Score("alike", _alike),
        Score("wholeness", gpu_scores.fgd),
        Score("expected-fill", gpu_scores.expected_fill),
        Score("gpu-best-fit", gpu_scores.gpu_best_fit),
        Score("dot-product", gpu_scores.dot_product),
        Score("gpu-packing", gpu_scores.gpu_packing),
        Score("gpu-clustering", gpu_scores.gpu_clustering),
    )
}
APART, PREFERRED, UNTAINTED, WARM = (SCORES[name] for name in ("apart", "preferred", "untainted", "warm"))
Parts = tuple[tuple[Score, float], ...]
_ALL_ALIKE: Parts = ((SCORES["alike"], 1.0),)


@lru_cache(maxsize=1_024)
def _parts(weights: strategies.Weights) -> Parts:
    """Without those that only newer versions know."""
    return tuple((SCORES[name], weight) for name, weight in weights if name in SCORES)


STRATEGIES: dict[str, Parts] = {name: _parts(weights) for name, weights in strategies.WEIGHTS.items()}
_COUNTING = frozenset(name for name, parts in STRATEGIES.items() if any(score is APART for score, _ in parts))


def terms(table: NodeTable, request: Request) -> Parts:
    """The scores that can tell nodes apart for this class, with their weights, of the policy or built in."""
    if request.weights:
        strategy = _parts(request.weights)
    else:
        strategy = STRATEGIES.get(request.strategy, STRATEGIES[strategies.DEFAULT])
    idle = set()
    if not request.prefers:
        idle.add(PREFERRED.name)
    if not request.image:
        idle.add(WARM.name)
    if len(table.taint_sets) == 1:
        idle.add(UNTAINTED.name)
    return tuple((score, weight) for score, weight in strategy if score.name not in idle) or _ALL_ALIKE


def weight_sum(table: NodeTable, request: Request) -> float:
    return sum(weight for _, weight in terms(table, request))


def cost(request: Request) -> int:
    """Of one node's answers, about, in those of an ordinary request."""
    if request.weights:
        return 1 if strategies.SCORES_OF_GPUS.isdisjoint(name for name, _ in request.weights) else _GPU_COST
    return _GPU_COST if request.strategy in strategies.FOR_GPUS else 1


def counts_copies(request: Request) -> bool:
    """Whether the class's scores depend on where its own replicas are, so that its row is its own."""
    if request.weights:
        return any(name == APART.name for name, _ in request.weights)
    return request.strategy in _COUNTING


def total(table: NodeTable, request: Request, rows: Rows, used: Integers, copies: npt.NDArray[np.int32]) -> Scores:
    """The weighted mean of the strategy's scores."""
    parts = terms(table, request)
    whole = sum(weight for _, weight in parts)
    value = np.zeros(used.shape[:-1], np.float32)
    for score, weight in parts:
        value += np.float32(weight / whole) * score.value(table, request, rows, used, copies)
    return value
