"""Filters, scores and the batch against a plain Python reference, on random clusters."""

from copy import deepcopy

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atoll.api.v1 import objects_pb2
from atoll.model import strategies
from atoll.model.costs import COST_LABEL
from atoll.model.resources import DIMENSIONS, Vector
from regional.core import gpu_scores, scores
from regional.core.class_row import ClassRow
from regional.core.colocation import FULL_WEIGHT
from regional.core.filters import FILTERS, Request, request_of
from regional.core.node_table import NODE
from regional.core.placement import explain_node, explain_refusals, show_scores
from regional.core.spread_filling import fill
from tests.support.plain_placement import (
    MODELS,
    Near,
    PlainNode,
    around_of,
    first_refusal,
    name_of,
    plain_rules,
    plain_terms,
    reference,
    refusals,
    table_of,
)

KEYS, VALUES = ("zone", "disk", "slots", COST_LABEL), ("a", "b", "7", "12", "-3", "0.02", "0")


Effect = objects_pb2.TaintEffect


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
        images=st.sampled_from([(), ("web:latest",), ("db:latest", "web:latest")]),
        resting=st.sampled_from([False] * 9 + [True]),
        kept=st.sampled_from([False] * 9 + [True]),
        unfit=st.sampled_from([""] * 9 + ["its disk is full"]),
        promised_percent=st.sampled_from([100, 100, 150]),
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
    lambda asked, gpu, models, selector, requires, prefers, tolerated, named, driver, topology, image: objects_pb2.Task(
        name="main",
        image=image,
        gpu_models=models,
        driver=driver,
        resources=objects_pb2.ResourceRequirements(requests=Vector(*asked, gpu).to_proto()),
        node_selector=[objects_pb2.Label(key=k, value=v) for k, v in sorted(selector.items())],
        requires=requires,
        prefers=[objects_pb2.LabelPreference(requirement=r, weight=w) for r, w in prefers],
        tolerations=[objects_pb2.Toleration(key=k, value=v, effect=Effect.ValueType(e)) for k, v, e in tolerated],
        strategy=named,
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
    st.dictionaries(
        st.sampled_from((*KEYS, NODE)), st.tuples(st.integers(1, 2), st.sampled_from([0, 0, 50, 100])), max_size=2
    ),
    st.sampled_from(["", "web", "db"]),
)


nears = st.lists(
    st.builds(
        Near,
        st.sampled_from((*KEYS, NODE)),
        st.sampled_from([0, 0, 50, 100]),
        st.booleans(),
        st.booleans(),
        st.lists(st.sampled_from([0, 0, 0, 1, 2]), max_size=4).map(tuple),
    ),
    max_size=2,
)


@given(nodes, tasks, nears)
def test_refusals_are_those_of_the_plain_definition(
    plain: list[PlainNode], task: objects_pb2.Task, near: list[Near]
) -> None:
    table = table_of(plain)
    row = ClassRow(table, request_of(task))
    row.refresh({})
    found = [FILTERS[n].code if n >= 0 else "" for n in row.refusal.tolist()]
    assert found == [first_refusal(node, node.used, task) for node in plain]
    rules = plain_rules(plain, [node.used for node in plain], [0] * len(plain), task, near, [0] * len(plain))
    refused = [
        code or next((rule.code for rule in rules if not rule.takes(node)), "")
        for code, node in zip(found, plain, strict=True)
    ]
    around = around_of(plain, near)
    counted = {r.code: r.nodes for r in explain_refusals(row, around).reasons}
    assert counted == {code: refused.count(code) for code in refused if code}
    told = [explain_node(row, at, around) for at in range(len(plain))]
    assert [reasons[0].code if reasons else "" for reasons in told] == refused
    assert row.allowed(around).tolist() == [at for at, code in enumerate(refused) if not code]


@given(nodes, tasks, nears, st.lists(st.integers(0, 3), min_size=14, max_size=14))
def test_scores_are_those_of_the_plain_definition(
    plain: list[PlainNode], task: objects_pb2.Task, near: list[Near], copies: list[int]
) -> None:
    if task.strategy in strategies.FOR_GPUS:
        return  # test_gpu_scores.py
    table, request = table_of(plain), request_of(task)
    row = ClassRow(table, request)
    held = {i: count for i, count in enumerate(copies[: len(plain)]) if count}
    row.refresh(held)
    counted = held if scores.counts_copies(request) else {}
    for shown in show_scores(row, range(len(plain)), around_of(plain, near, held)):
        at = table.row_of[shown.node]
        used = [u + a for u, a in zip(plain[at].used, request.vector.amounts(), strict=True)]
        at_copies = [held.get(i, 0) for i in range(len(plain))]
        expected = plain_terms(plain[at], used, counted.get(at, 0), task, any(node.taints for node in plain))
        terms = [(name, value, weight) for name, (value, weight) in expected.items()]
        rules = plain_rules(plain, [node.used for node in plain], at_copies, task, near, [0] * len(plain))
        terms += [(name_of(r), r.value(plain[at]), FULL_WEIGHT * r.asked.weight / 100) for r in rules if r.asked.weight]
        assert [(t.name, t.weight) for t in shown.terms] == [(name, weight) for name, _, weight in terms]
        for shown_term, (name, value, _) in zip(shown.terms, terms, strict=True):
            assert abs(shown_term.value - value) < 1e-5, name
        mean = sum(v * w for _, v, w in terms) / sum(w for _, _, w in terms)
        assert abs(shown.total - mean) < 1e-5


def test_every_filter_has_a_plain_definition() -> None:
    node = PlainNode((0, 0, 0, 0), (0, 0, 0, 0), {}, [], ready=True, cordoned=False)
    assert list(refusals(node, node.used, objects_pb2.Task())) == [one.code for one in FILTERS]


def test_every_strategy_has_its_weights() -> None:
    assert tuple(scores.STRATEGIES) == strategies.STRATEGIES


@given(nodes, tasks, nears, st.integers(1, 12), st.integers(1, 4))
def test_a_batch_is_what_one_by_one_would_choose(
    plain: list[PlainNode], task: objects_pb2.Task, near: list[Near], count: int, first: int
) -> None:
    """Hard rules over domains stay kept after each of them."""
    table = table_of(plain)
    filling = fill(ClassRow(table, request_of(task)), count, around_of(plain, near))
    chosen = filling.take(first, 2 * count)
    held = deepcopy(plain)
    for row in chosen:
        table.charge(row, request_of(task).vector.amounts())
        numbers = gpu_scores.take(table, request_of(task), row)
        if task.strategy not in gpu_scores.CHOOSING:
            assert numbers == held[row].take(task)
    filling.charged()
    chosen += filling.take(count - len(chosen), 2 * count)
    assert chosen == reference(table_of(plain), plain, task, near, count)


@given(nodes, tasks)
def test_scores_are_between_zero_and_one(plain: list[PlainNode], task: objects_pb2.Task) -> None:
    table = table_of(plain)
    row = ClassRow(table, request_of(task))
    row.refresh({})
    feasible = row.score[row.feasible()]
    assert feasible.dtype == np.float32
    assert ((feasible >= 0) & (feasible <= 1.000001)).all()


@given(nodes, tasks, st.lists(st.tuples(st.integers(0, 13), st.integers(0, 4)), max_size=8))
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
        elif kind == 4:
            table.set_images(at, ("web:latest",) if number % 2 else ())
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
    chosen = fill(ClassRow(table, request_of(task)), count).take(count, compares, known)
    whole = fill(ClassRow(table, request_of(task)), count).take(count, 2 * count)
    assert chosen == whole[: len(chosen)]
    assert len(chosen) + len(set(chosen) - known) <= compares
    if len(chosen) < len(whole):
        assert len(chosen) + 1 + len(set(whole[: len(chosen) + 1]) - known) > compares
