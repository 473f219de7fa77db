"""Filters, scores and the batch against a plain Python reference, on random clusters."""

from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atoll.api.v1 import objects_pb2
from atoll.model import explain, strategies
from atoll.model.resources import DIMENSIONS, Vector
from atoll.model.selectors import matches, tolerates
from regional.core import gpus, scores
from regional.core.filters import FILTERS, HARD_TAINTS, Request, driver_labels, request_of
from regional.core.node_table import NodeTable
from regional.core.placement import ClassRow, explain_node, explain_refusals, show_scores
from regional.core.spread_filling import fill
from regional.core.topology import FULL_WEIGHT

KEYS, VALUES = ("zone", "disk", "slots"), ("a", "b", "7", "12", "-3")
MODELS = ("T4", "A100", "P100")
WHOLE = 1000
Effect = objects_pb2.TaintEffect


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

    def __post_init__(self) -> None:
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


NO_DRIVER = (objects_pb2.DRIVER_UNSPECIFIED,)
amounts = st.tuples(*(st.integers(0, 12) for _ in DIMENSIONS))
taints = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES), st.sampled_from([1, 2, 3])), max_size=2, unique=True
)
nodes = st.lists(
    st.builds(
        PlainNode,
        capacity=amounts,
        used=st.just((0,) * len(DIMENSIONS)),
        labels=st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=3),
        taints=taints,
        ready=st.booleans() | st.just(True),
        cordoned=st.sampled_from([False, False, True]),
        drivers=st.sampled_from([(), (objects_pb2.DRIVER_PROCESS, objects_pb2.DRIVER_DOCKER), NO_DRIVER]),
        gpus=st.dictionaries(
            st.integers(0, 4),
            st.tuples(st.sampled_from(MODELS), st.sampled_from([1000, 1000, 600, 300, 0])),
            max_size=4,
        ),
    ),
    min_size=1,
    max_size=14,
)
requirements = st.builds(
    lambda key, operator, value: objects_pb2.LabelRequirement(
        key=key, operator=operator, values=[] if operator in (3, 4) else [value]
    ),
    st.sampled_from(KEYS),
    st.sampled_from([1, 2, 3, 4, 5, 6]),
    st.sampled_from(VALUES),
)
tasks = st.builds(
    lambda asked, gpu, models, selector, requires, prefers, tolerated, strategy, driver, topology: objects_pb2.Task(
        name="main",
        gpu_models=models,
        driver=driver,
        resources=objects_pb2.ResourceRequirements(requests=Vector(*asked, gpu).to_proto()),
        node_selector=[objects_pb2.Label(key=k, value=v) for k, v in sorted(selector.items())],
        requires=requires,
        prefers=[objects_pb2.LabelPreference(requirement=r, weight=w) for r, w in prefers],
        tolerations=[objects_pb2.Toleration(key=k, value=v, effect=Effect.ValueType(e)) for k, v, e in tolerated],
        strategy=strategy,
        topology_spread=[objects_pb2.TopologySpread(within=k, max_skew=s, weight=w) for k, (s, w) in topology.items()],
    ),
    st.tuples(*(st.integers(0, 4) for _ in DIMENSIONS[:-1])),
    st.sampled_from([0, 0, 300, 500, 1000, 2000]),
    st.lists(st.sampled_from(MODELS), max_size=2, unique=True),
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=1),
    st.lists(requirements, max_size=1),
    st.lists(st.tuples(requirements, st.integers(1, 100)), max_size=2),
    st.lists(st.tuples(st.sampled_from(("", *KEYS)), st.sampled_from(("", *VALUES)), st.integers(0, 3)), max_size=2),
    st.sampled_from(["", *strategies.STRATEGIES]),
    st.sampled_from([objects_pb2.DRIVER_UNSPECIFIED, objects_pb2.DRIVER_PROCESS, objects_pb2.DRIVER_DOCKER]),
    st.dictionaries(st.sampled_from(KEYS), st.tuples(st.integers(1, 2), st.sampled_from([0, 0, 50, 100])), max_size=2),
)


def table_of(plain: list[PlainNode]) -> NodeTable:
    table = NodeTable()
    for number, node in enumerate(plain):
        row = table.add(f"n{number}")
        labels = node.labels | driver_labels(node.drivers)
        models = {number: model for number, (model, _) in node.gpus.items()}
        table.describe(row, node.capacity, labels, node.taints, node.cordoned, models)
        table.charge(row, node.used)
        for number, (_, left) in node.gpus.items():
            table.charge_gpus(row, (number,), WHOLE - left)
        table.set_ready(row, node.ready)
    return table


def first_refusal(node: PlainNode, used: tuple[int, ...], task: objects_pb2.Task) -> str:
    """The reason code of the first filter that refuses, "" when none does."""
    if not node.ready:
        return explain.NODE_NOT_READY
    if node.cordoned:
        return explain.NODE_CORDONED
    offered = node.drivers or (objects_pb2.DRIVER_PROCESS, objects_pb2.DRIVER_FAKE)
    if task.driver != objects_pb2.DRIVER_UNSPECIFIED and task.driver not in offered:
        return explain.DRIVER_MISSING
    if any(node.labels.get(label.key) != label.value for label in task.node_selector):
        return explain.NODE_SELECTOR
    if not all(matches(r, node.labels) for r in task.requires):
        return explain.NODE_REQUIREMENT
    hard = [t for t in node.taints if t[2] in HARD_TAINTS]
    if any(not any(tolerates(toleration, *taint) for toleration in task.tolerations) for taint in hard):
        return explain.TAINT
    of_model = [model for model, _ in node.gpus.values() if model in task.gpu_models]
    if task.gpu_models and len(of_model) < gpus_needed(task):
        return explain.GPU_MODEL
    asked = request_of(task).vector.amounts()
    for i, name in enumerate(DIMENSIONS[:-1]):
        if asked[i] and asked[i] > node.capacity[i] - used[i]:
            return explain.INSUFFICIENT[name]
    if asked[-1] and len(node.devices(task)) < gpus_needed(task):
        return explain.INSUFFICIENT["gpu_milli"]
    return ""


@dataclass
class PlainRule:
    """One rule of topology spread: replicas by value of the label, of values that count."""

    asked: objects_pb2.TopologySpread
    counts: dict[str, int]

    def counts_for(self, node: PlainNode) -> bool:
        return node.labels.get(self.asked.within) in self.counts

    def excess(self, node: PlainNode) -> int:
        here = self.counts[node.labels[self.asked.within]]
        return max(0, here + 1 - min(self.counts.values()) - self.asked.max_skew)

    def takes(self, node: PlainNode) -> bool:
        return bool(self.asked.weight) or (self.counts_for(node) and not self.excess(node))

    def value(self, node: PlainNode) -> float:
        return 1 / (1 + self.excess(node)) if self.counts_for(node) else 0.0


def plain_rules(
    plain: list[PlainNode], used: list[tuple[int, ...]], copies: list[int], task: objects_pb2.Task
) -> list[PlainRule]:
    for_room = {"", *explain.INSUFFICIENT.values()}
    rules = []
    for asked in task.topology_spread:
        counts: dict[str, int] = {}
        for node, held in zip(plain, used, strict=True):
            if first_refusal(node, held, task) in for_room and asked.within in node.labels:
                counts[node.labels[asked.within]] = 0
        for node, own in zip(plain, copies, strict=True):
            if node.labels.get(asked.within) in counts:
                counts[node.labels[asked.within]] += own
        rules.append(PlainRule(asked, counts))
    return rules


@given(nodes, tasks)
def test_refusals_are_those_of_the_plain_definition(plain: list[PlainNode], task: objects_pb2.Task) -> None:
    table = table_of(plain)
    row = ClassRow(table, request_of(task))
    row.refresh({})
    found = [FILTERS[n].code if n >= 0 else "" for n in row.refusal.tolist()]
    assert found == [first_refusal(node, node.used, task) for node in plain]
    rules = plain_rules(plain, [node.used for node in plain], [0] * len(plain), task)
    refused = [
        code or (explain.TOPOLOGY_SPREAD if any(not rule.takes(node) for rule in rules) else "")
        for code, node in zip(found, plain, strict=True)
    ]
    counted = {r.code: r.nodes for r in explain_refusals(row, {}).reasons}
    assert counted == {code: refused.count(code) for code in refused if code}
    told = [explain_node(row, at, {}) for at in range(len(plain))]
    assert [reason.code if reason else "" for reason in told] == refused
    assert row.allowed({}).tolist() == [at for at, code in enumerate(refused) if not code]


def plain_terms(
    node: PlainNode, used: list[int], copies: int, task: objects_pb2.Task, tainted: bool
) -> dict[str, tuple[float, float]]:
    """Value and weight of every term of the score of a node that would then have `used` in use, and has `copies`
    already: the definitions, one node at a time. `tainted`: a node has a taint."""
    asked = [(i, amount) for i, amount in enumerate(request_of(task).vector.amounts()) if amount]
    shares = [min(used[i] / max(node.capacity[i], 1), 1.0) for i, _ in asked]
    fullness = sum(shares) / len(shares) if shares else 0.0
    fits = [amount / (amount + max(node.capacity[i] - used[i], 0)) for i, amount in asked]
    tightness = sum(fits) / len(fits) if fits else 0.0
    own: dict[str, dict[str, tuple[float, float]]] = {
        strategies.BIN_PACK: {"fullness": (fullness, 1)},
        strategies.SPREAD: {"apart": (1 / (1 + copies), 2), "emptiness": (1 - fullness, 1)},
        strategies.BALANCED: {"evenness": (1 - (max(shares) - min(shares)) if shares else 0.0, 1)},
        strategies.LEAST_LOADED: {"emptiness": (1 - fullness, 1)},
        strategies.BEST_FIT: {"tightness": (tightness, 1)},
        strategies.WORST_FIT: {"looseness": (1 - tightness, 1)},
        strategies.FIRST_FIT: {"alike": (0, 1)},
        strategies.ROUND_ROBIN: {"apart": (1 / (1 + copies), 1)},
    }
    terms = dict(own[task.strategy or strategies.BIN_PACK])
    if task.prefers:
        satisfied = sum(p.weight for p in task.prefers if matches(p.requirement, node.labels))
        terms["preferred"] = (satisfied / sum(p.weight for p in task.prefers), 2)
    if tainted:
        soft = [t for t in node.taints if t[2] in scores.SOFT_TAINTS]
        count = sum(not any(tolerates(toleration, *taint) for toleration in task.tolerations) for taint in soft)
        terms["untainted"] = (1 / (1 + count), 4)
    return terms


@given(nodes, tasks, st.lists(st.integers(0, 3), min_size=14, max_size=14))
def test_scores_are_those_of_the_plain_definition(
    plain: list[PlainNode], task: objects_pb2.Task, copies: list[int]
) -> None:
    table, request = table_of(plain), request_of(task)
    row = ClassRow(table, request)
    held = {i: count for i, count in enumerate(copies[: len(plain)]) if count}
    row.refresh(held)
    counted = held if scores.counts_copies(request) else {}
    for shown in show_scores(row, range(len(plain)), held):
        at = table.row_of[shown.node]
        used = [u + a for u, a in zip(plain[at].used, request.vector.amounts(), strict=True)]
        at_copies = [held.get(i, 0) for i in range(len(plain))]
        expected = plain_terms(plain[at], used, counted.get(at, 0), task, any(node.taints for node in plain))
        for rule in plain_rules(plain, [node.used for node in plain], at_copies, task):
            if weight := rule.asked.weight:
                expected[f"spread:{rule.asked.within}"] = (rule.value(plain[at]), FULL_WEIGHT * weight / 100)
        assert {t.name: t.weight for t in shown.terms} == {name: weight for name, (_, weight) in expected.items()}
        for term in shown.terms:
            assert abs(term.value - expected[term.name][0]) < 1e-5, term.name
        mean = sum(v * w for v, w in expected.values()) / sum(w for _, w in expected.values())
        assert abs(shown.total - mean) < 1e-5


def test_every_strategy_has_its_weights() -> None:
    assert tuple(scores.STRATEGIES) == strategies.STRATEGIES


def reference(table: NodeTable, plain: list[PlainNode], task: objects_pb2.Task, count: int) -> list[int]:
    """Every node scored anew after each single replica."""
    request, plain = request_of(task), deepcopy(plain)
    asked = np.array(request.vector.amounts(), np.int64)
    used = [np.array(node.used, np.int64) for node in plain]
    copies = [0] * len(plain)
    chosen: list[int] = []
    while len(chosen) < count:
        best: tuple[float, int] | None = None
        rules = plain_rules(plain, [tuple(u.tolist()) for u in used], copies, task)
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
        plain[best[1]].take(task)
        used[best[1]] = used[best[1]] + asked
        copies[best[1]] += 1
    return chosen


@given(nodes, tasks, st.integers(1, 12), st.integers(1, 4))
def test_a_batch_is_what_one_by_one_would_choose(
    plain: list[PlainNode], task: objects_pb2.Task, count: int, first: int
) -> None:
    """Hard rules of topology spread stay kept after each of them."""
    table = table_of(plain)
    filling = fill(ClassRow(table, request_of(task)), count, {})
    chosen = filling.take(first, 2 * count)
    held = deepcopy(plain)
    for row in chosen:
        table.charge(row, request_of(task).vector.amounts())
        assert gpus.take(table, request_of(task), row) == held[row].take(task)
    filling.charged()
    chosen += filling.take(count - len(chosen), 2 * count)
    assert chosen == reference(table_of(plain), plain, task, count)


@given(nodes, tasks)
def test_scores_are_between_zero_and_one(plain: list[PlainNode], task: objects_pb2.Task) -> None:
    table = table_of(plain)
    row = ClassRow(table, request_of(task))
    row.refresh({})
    feasible = row.score[row.feasible()]
    assert feasible.dtype == np.float32
    assert ((feasible >= 0) & (feasible <= 1.000001)).all()


@given(nodes, tasks, st.lists(st.tuples(st.integers(0, 13), st.integers(0, 3)), max_size=8))
def test_a_repaired_row_equals_a_fresh_one(
    plain: list[PlainNode], task: objects_pb2.Task, changes: list[tuple[int, int]]
) -> None:
    table = table_of(plain)
    row = ClassRow(table, request_of(task))
    row.refresh({})
    for number, kind in changes:
        at = number % len(plain)
        node = plain[at]
        if kind == 0:
            table.set_ready(at, not table.ready[at])
        elif kind == 1:
            table.describe(at, node.capacity, {"zone": "b"}, [("zone", "a", 1)], False)
        elif kind == 2:
            table.charge(at, (1, 1, 1, 1))
        else:
            table.describe(table.add(f"more{table.size}"), (9, 9, 9, 9), {}, (), False)
    row.refresh({})
    fresh = ClassRow(table, Request(**{f: getattr(row.request, f) for f in Request.__slots__}))
    fresh.refresh({})
    assert row.refusal.tolist() == fresh.refusal.tolist()
    assert row.score.tolist() == fresh.score.tolist()


@given(nodes, tasks, st.integers(1, 12), st.integers(2, 12))
def test_a_budget_of_compares_cuts_the_same_choice_short(
    plain: list[PlainNode], task: objects_pb2.Task, count: int, compares: int
) -> None:
    table = table_of(plain)
    known = {0} if plain else set()
    chosen = fill(ClassRow(table, request_of(task)), count, {}).take(count, compares, known)
    whole = fill(ClassRow(table, request_of(task)), count, {}).take(count, 2 * count)
    assert chosen == whole[: len(chosen)]
    assert len(chosen) + len(set(chosen) - known) <= compares
    if len(chosen) < len(whole):
        assert len(chosen) + 1 + len(set(whole[: len(chosen) + 1]) - known) > compares
