"""The definitions of filters, rules and scores in plain Python, one node at a time: what the vectorized ones equal."""

import math
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np

from atoll.api.v1 import objects_pb2
from atoll.model import explain, strategies
from atoll.model.costs import COST_LABEL
from atoll.model.resources import DIMENSIONS
from atoll.model.selectors import matches, tolerates
from regional.core import gpu_scores, scores
from regional.core.colocation import FULL_WEIGHT, Around, Counted, News, Term
from regional.core.filters import HARD_TAINTS, driver_labels, request_of
from regional.core.node_table import NODE, NodeTable
from regional.core.typical import Shape, Typical

MODELS = ("T4", "A100", "P100")
WHOLE = 1000
TYPICAL = ((Shape(1, 300), 0.4), (Shape(1, 1_000, ("T4", "P100")), 0.2), (Shape(4, 2_000), 0.2), (Shape(2, 0), 0.2))


@dataclass
class PlainNode:
    capacity: tuple[int, ...]
    used: tuple[int, ...]
    labels: dict[str, str]
    taints: list[tuple[str, str, int]]
    ready: bool
    cordoned: bool
    drivers: tuple[int, ...] = ()
    gpus: dict[int, tuple[str, int]] = field(default_factory=dict)  # model and milli left by number
    images: tuple[str, ...] = ()
    resting: bool = False
    kept: bool = False
    unfit: str = ""
    promised_percent: int = 100  # of what there is

    def __post_init__(self) -> None:
        self.there = self.capacity
        self.capacity = tuple(amount * self.promised_percent // 100 for amount in self.capacity)
        self.capacity = (*self.capacity[:-1], WHOLE * len(self.gpus))
        self.used = (0,) * (len(DIMENSIONS) - 1) + (sum(WHOLE - left for _, left in self.gpus.values()),)

    def devices(self, task: objects_pb2.Task) -> list[tuple[int, int]]:
        """Milli left and number of those it may use, of which `gpus_needed` must have enough."""
        mine = [(left, n) for n, (model, left) in self.gpus.items() if model in (task.gpu_models or MODELS)]
        asked = task.resources.requests.gpu_milli
        return [(left, n) for left, n in mine if left >= min(asked, WHOLE)]

    def take(self, task: objects_pb2.Task) -> tuple[int, ...]:
        """One replica more: the devices it gets."""
        asked = task.resources.requests.gpu_milli
        if not asked:
            return ()
        fitting = self.devices(task)
        numbers = sorted(n for _, n in fitting)[: asked // WHOLE] if asked >= WHOLE else [min(fitting)[1]]
        for number in numbers:
            model, left = self.gpus[number]
            self.gpus[number] = model, left - asked // len(numbers)
        return tuple(numbers)


def gpus_needed(task: objects_pb2.Task) -> int:
    return max(1, task.resources.requests.gpu_milli // WHOLE)


@dataclass(frozen=True)
class Near:
    """A term, and how many replicas it counts on each of the first nodes before any is placed."""

    within: str
    weight: int
    apart: bool
    own: bool
    counts: tuple[int, ...]

    @property
    def keeps_off_nodes(self) -> bool:
        return self.apart and not self.weight and self.within == NODE

    def term(self, plain: list[PlainNode]) -> Term:
        counted = Counted(News(), {row: n for row, n in enumerate(self.counts[: len(plain)]) if n})
        return Term(self.within, self.weight, self.apart, counted, self.own, about="others")


def around_of(plain: list[PlainNode], near: list[Near], copies: dict[int, int] | None = None) -> Around:
    return Around(copies or {}, tuple(one.term(plain) for one in near))


def table_of(plain: list[PlainNode]) -> NodeTable:
    table = NodeTable()
    for number, node in enumerate(plain):
        row = table.add(f"n{number}")
        labels = node.labels | driver_labels(node.drivers)
        models = {number: model for number, (model, _) in node.gpus.items()}
        there = (*node.there[:-1], node.capacity[-1]) if node.promised_percent != 100 else None
        table.describe(row, node.capacity, labels, node.taints, node.cordoned, models, there)
        table.charge(row, node.used)
        for number, (_, left) in node.gpus.items():
            table.charge_gpus(row, (number,), WHOLE - left)
        table.set_ready(row, node.ready)
        table.set_images(row, node.images)
        table.set_resting(row, node.resting)
        table.set_kept(row, node.kept)
        table.set_unfit(row, node.unfit)
    table.expect(Typical(TYPICAL))
    return table


def refusals(node: PlainNode, used: tuple[int, ...], task: objects_pb2.Task) -> dict[str, bool]:
    """Whether each filter refuses, by its reason code, in their order."""
    offered = node.drivers or (objects_pb2.DRIVER_PROCESS, objects_pb2.DRIVER_FAKE)
    hard = [t for t in node.taints if t[2] in HARD_TAINTS]
    of_model = [model for model, _ in node.gpus.values() if model in task.gpu_models]
    *asked, gpus_asked = request_of(task).vector.amounts()
    room = [min(promised - held, there) for promised, held, there in zip(node.capacity, used, node.there, strict=True)]
    return {
        explain.NODE_NOT_READY: not node.ready,
        explain.NODE_CORDONED: node.cordoned,
        explain.NODE_RESTING: node.resting,
        explain.ROOM_KEPT: node.kept,
        explain.NODE_UNFIT: bool(node.unfit),
        explain.DRIVER_MISSING: task.driver != objects_pb2.DRIVER_UNSPECIFIED and task.driver not in offered,
        explain.NODE_SELECTOR: any(node.labels.get(label.key) != label.value for label in task.node_selector),
        explain.NODE_REQUIREMENT: not all(matches(r, node.labels) for r in task.requires),
        explain.TAINT: any(not any(tolerates(toleration, *taint) for toleration in task.tolerations) for taint in hard),
        explain.GPU_MODEL: bool(task.gpu_models) and len(of_model) < gpus_needed(task),
        **{explain.INSUFFICIENT[d]: 0 < one > left for d, one, left in zip(DIMENSIONS, asked, room, strict=False)},
        explain.INSUFFICIENT["gpu_milli"]: bool(gpus_asked) and len(node.devices(task)) < gpus_needed(task),
    }


def first_refusal(node: PlainNode, used: tuple[int, ...], task: objects_pb2.Task) -> str:
    """The reason code of the first filter that refuses, "" when none does."""
    return next((code for code, refuses in refusals(node, used, task).items() if refuses), "")


@dataclass
class PlainRule:
    """One rule of topology spread: replicas by value of the label, of values that count."""

    asked: objects_pb2.TopologySpread
    counts: dict[str, int]
    code = explain.TOPOLOGY_SPREAD

    def counts_for(self, node: PlainNode) -> bool:
        return domain_of(node, self.asked.within) in self.counts

    def excess(self, node: PlainNode) -> int:
        here = self.counts[domain_of(node, self.asked.within)]
        return max(0, here + 1 - min(self.counts.values()) - self.asked.max_skew)

    def takes(self, node: PlainNode) -> bool:
        return bool(self.asked.weight) or (self.counts_for(node) and not self.excess(node))

    def value(self, node: PlainNode) -> float:
        return 1 / (1 + self.excess(node)) if self.counts_for(node) else 0.0


@dataclass
class PlainNear:
    """One term: replicas that it counts, by value of the label."""

    asked: Near
    counts: dict[str, int]
    code = ""

    def __post_init__(self) -> None:
        self.code = explain.KEPT_APART if self.asked.apart else explain.NOT_COLOCATED

    def here(self, node: PlainNode) -> int:
        return self.counts.get(domain_of(node, self.asked.within), 0)

    def takes(self, node: PlainNode) -> bool:
        if self.asked.weight:
            return True
        if self.asked.apart:
            return not self.here(node)
        founds = self.asked.own and not self.counts
        return bool(domain_of(node, self.asked.within)) and (bool(self.here(node)) or founds)

    def value(self, node: PlainNode) -> float:
        return 1 / (1 + self.here(node)) if self.asked.apart else float(self.here(node) > 0)


def domain_of(node: PlainNode, within: str) -> str:
    return str(id(node)) if within == NODE else node.labels.get(within, "")


Rules = list[PlainNear | PlainRule]


def plain_rules(
    plain: list[PlainNode],
    used: list[tuple[int, ...]],
    copies: list[int],
    task: objects_pb2.Task,
    near: list[Near],
    placed: list[int],
) -> Rules:
    """`copies`: all replicas of the task by node; `placed`: those of them that no term counted at the start."""
    for_room = {"", *explain.INSUFFICIENT.values()}
    rules: Rules = []
    for one in sorted(near, key=lambda one: not one.keeps_off_nodes):
        sums: dict[str, int] = {}
        for number, node in enumerate(plain):
            before = one.counts[number] if number < len(one.counts) else 0
            count, where = before + one.own * placed[number], domain_of(node, one.within)
            if count and where:
                sums[where] = sums.get(where, 0) + count
        rules.append(PlainNear(one, sums))
    for asked in task.topology_spread:
        counts: dict[str, int] = {}
        for node, held in zip(plain, used, strict=True):
            if first_refusal(node, held, task) in for_room and domain_of(node, asked.within):
                counts[domain_of(node, asked.within)] = 0
        for node, own in zip(plain, copies, strict=True):
            if domain_of(node, asked.within) in counts:
                counts[domain_of(node, asked.within)] += own
        rules.append(PlainRule(asked, counts))
    return rules


def plain_terms(
    node: PlainNode, used: list[int], copies: int, task: objects_pb2.Task, tainted: bool
) -> dict[str, tuple[float, float]]:
    """Value and weight of every term of the score of a node that would then have `used` in use, and has `copies`
    already: the definitions, one node at a time. `tainted`: a node has a taint."""
    all_asked = request_of(task).vector.amounts()
    asked = [(i, amount) for i, amount in enumerate(all_asked) if amount]
    shares = [min(used[i] / max(node.capacity[i], 1), 1.0) for i, _ in asked]
    fullness = sum(shares) / len(shares) if shares else 0.0
    fits = [amount / (amount + max(node.capacity[i] - used[i], 0)) for i, amount in asked]
    tightness = sum(fits) / len(fits) if fits else 0.0
    held = float(f"{task.image}:latest" in node.images)
    warm = {"warm": (held, 1 / 16)} if task.image else {}
    own: dict[str, dict[str, tuple[float, float]]] = {
        strategies.BIN_PACK: {"fullness": (fullness, 1)} | warm,
        strategies.SPREAD: {"apart": (1 / (1 + copies), 2), "emptiness": (1 - fullness, 1)} | warm,
        strategies.BALANCED: {"evenness": (1 - (max(shares) - min(shares)) if shares else 0.0, 1)} | warm,
        strategies.LEAST_LOADED: {"emptiness": (1 - fullness, 1)} | warm,
        strategies.BEST_FIT: {"tightness": (tightness, 1)} | warm,
        strategies.WORST_FIT: {"looseness": (1 - tightness, 1)} | warm,
        strategies.FIRST_FIT: {"alike": (0, 1)},
        strategies.COST: {},
        strategies.WARM_IMAGE: {"warm": (held, 1)} if task.image else {},
        strategies.ROUND_ROBIN: {"apart": (1 / (1 + copies), 1)},
    }
    terms = dict(own[(task.strategy or strategies.BIN_PACK).removesuffix("-decreasing")])
    if task.strategy == strategies.COST:
        part = max(
            min(amount / max(capacity, 1), 1.0) for amount, capacity in zip(all_asked, node.capacity, strict=True)
        )
        terms = {"cheapness": (plain_cheapness(node.labels.get(COST_LABEL), part), 1), "fullness": (fullness, 1 / 1024)}
    if task.strategy == strategies.WARM_IMAGE:
        terms["fullness"] = (fullness, 1)
    if task.prefers:
        satisfied = sum(p.weight for p in task.prefers if matches(p.requirement, node.labels))
        terms["preferred"] = (satisfied / sum(p.weight for p in task.prefers), 2)
    if tainted:
        soft = [t for t in node.taints if t[2] in scores.SOFT_TAINTS]
        count = sum(not any(tolerates(toleration, *taint) for toleration in task.tolerations) for taint in soft)
        terms["untainted"] = (1 / (1 + count), 4)
    return terms


def plain_cheapness(price: str | None, part: float) -> float:
    if price is None or not price.replace(".", "", 1).isdigit():
        return 0.0
    cost = float(price) * part
    return min(1.0, max(0.0, 0.5 - math.log2(cost) / 40)) if cost else 1.0


def name_of(rule: PlainNear | PlainRule) -> str:
    if isinstance(rule, PlainRule):
        return f"spread:{rule.asked.within}"
    within = "" if rule.asked.within == NODE else f"/{rule.asked.within}"
    return f"{'apart' if rule.asked.apart else 'near'}:others{within}"


def reference(
    table: NodeTable, plain: list[PlainNode], task: objects_pb2.Task, near: list[Near], count: int
) -> list[int]:
    """Every node scored anew after each single replica."""
    request, plain = request_of(task), deepcopy(plain)
    asked = np.array(request.vector.amounts(), np.int64)
    used = [np.array(node.used, np.int64) for node in plain]
    copies = [0] * len(plain)
    chosen: list[int] = []
    while len(chosen) < count:
        best: tuple[float, int] | None = None
        rules = plain_rules(plain, [tuple(u.tolist()) for u in used], copies, task, near, copies)
        soft = [rule for rule in rules if rule.asked.weight]
        for i, node in enumerate(plain):
            if first_refusal(node, tuple(used[i].tolist()), task) or not all(rule.takes(node) for rule in rules):
                continue
            rows = np.array([i])
            value = scores.total(
                table, request, rows, (used[i] + asked)[None, :], np.array([copies[i]], np.int32)
            ).tolist()[0]
            if soft:
                whole = parts = scores.weight_sum(table, request)
                parts *= value
                for rule in soft:
                    weight = FULL_WEIGHT * rule.asked.weight / 100
                    whole, parts = whole + weight, parts + weight * rule.value(node)
                value = parts / whole
            if best is None or value > best[0]:
                best = (value, i)
        if best is None:
            return chosen
        chosen.append(best[1])
        table.charge(best[1], request.vector)
        for number in gpu_scores.take(table, request, best[1]):
            model, _ = plain[best[1]].gpus[number]
            plain[best[1]].gpus[number] = model, int(table.gpus.left[best[1], number])
        used[best[1]] = used[best[1]] + asked
        copies[best[1]] += 1
    return chosen
