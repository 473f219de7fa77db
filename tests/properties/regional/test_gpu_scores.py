"""Scores of GPUs, and the devices that are chosen, against their definitions; and that devices are never overdrawn."""

import math
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atoll.model import strategies
from atoll.model.resources import Vector
from regional.core import gpu_scores, gpus
from regional.core.class_row import ClassRow
from regional.core.filters import Request
from regional.core.node_table import NodeTable
from regional.core.typical import Demand, Shape, Typical, typical
from tests.support import plain_gpus
from tests.support.plain_gpus import WHOLE

MODELS = ("T4", "A100")
ROOM = 32_000
models = st.sampled_from([(), (), ("T4",), MODELS])
shapes = st.builds(
    Shape, st.sampled_from([1_000, 4_000, 8_000]), st.sampled_from([0, 160, 470, 810, 1_000, 2_000]), models
)
typicals = st.lists(shapes, min_size=1, max_size=5, unique=True).map(lambda s: [(one, 1 / len(s)) for one in s])
devices = st.lists(st.tuples(st.sampled_from(MODELS), st.sampled_from([1_000, 1_000, 840, 530, 190, 0])), max_size=4)
nodes = st.lists(
    st.builds(plain_gpus.Node, st.integers(0, ROOM // 500).map(lambda n: n * 500), devices.map(tuple)),
    min_size=1,
    max_size=5,
)
choosing = st.sampled_from(list(gpu_scores.CHOOSING))


def table_of(plain: list[plain_gpus.Node], expected: list[tuple[Shape, float]]) -> NodeTable:
    table = NodeTable()
    for number, node in enumerate(plain):
        row = table.add(f"n{number}")
        models = {n: model for n, (model, _) in enumerate(node.devices)}
        table.describe(row, (ROOM, 1, 0, WHOLE * len(models)), {}, (), False, models)
        table.set_ready(row, True)
        table.charge(row, (ROOM - node.cpu_left, 0, 0, WHOLE * len(models) - node.left))
        for n, (_, left) in enumerate(node.devices):
            if left < WHOLE:
                table.charge_gpus(row, (n,), WHOLE - left)
    table.expect(Typical(expected))
    return table


def request_of(asked: Shape, strategy: str) -> Request:
    vector = Vector(asked.cpu_milli, 0, 0, asked.gpu_milli)
    return Request(vector, strategy=strategy, gpu_models=asked.gpu_models if asked.gpu_milli else ())


@given(nodes, shapes, typicals, choosing)
def test_scores_and_devices_are_those_of_the_definition(
    plain: list[plain_gpus.Node], asked: Shape, expected: list[tuple[Shape, float]], strategy: str
) -> None:
    table = table_of(plain, expected)
    row = ClassRow(table, request_of(asked, strategy))
    row.refresh({})
    for at in row.feasible().tolist():
        gains = plain_gpus.gains(strategy, plain[at], asked, expected)
        possible = {plain_gpus.score(strategy, max(gains) + off) for off in (-1e-7, 0, 1e-7)}
        assert min(abs(float(row.score[at]) - score) for score in possible) < 1e-5
        table.charge(at, row.request.vector)
        numbers = gpu_scores.take(table, row.request, at)
        after = tuple(
            (model, left - (asked.gpu_milli // len(numbers) if n in numbers else 0))
            for n, (model, left) in enumerate(plain[at].devices)
        )
        outcomes = [node.devices for node in plain_gpus.placements(plain[at], asked)]
        assert math.isclose(gains[outcomes.index(after)], max(gains), abs_tol=1e-6)


@given(nodes, shapes, st.sampled_from(sorted({*strategies.FOR_GPUS} - {*gpu_scores.CHOOSING})))
def test_the_published_policies_are_those_of_their_definitions(
    plain: list[plain_gpus.Node], asked: Shape, strategy: str
) -> None:
    table = table_of(plain, [(asked, 1.0)])
    row = ClassRow(table, request_of(asked, strategy))
    row.refresh({})
    largest = max(WHOLE * len(node.devices) for node in plain)
    for at in row.feasible().tolist():
        in_use = tuple(WHOLE - left for _, left in plain[at].devices if left < WHOLE)  # each by one replica: `table_of`
        value = plain_gpus.published(strategy, replace(plain[at], held=in_use), asked, ROOM, largest)
        possible = {plain_gpus.hundredths(value + off) for off in (-1e-7, 0, 1e-7)}
        assert min(abs(float(row.score[at]) - score) for score in possible) < 1e-5


@given(nodes, st.lists(shapes, min_size=1, max_size=12), st.sampled_from(strategies.FOR_GPUS), st.integers(0, 3))
def test_devices_are_never_overdrawn_and_come_back_exactly(
    plain: list[plain_gpus.Node], asked: list[Shape], strategy: str, keep: int
) -> None:
    table = table_of(plain, [(asked[0], 1.0)])
    before = table.gpus.left.copy()
    taken = []
    for one in asked:
        row = ClassRow(table, request_of(one, strategy))
        row.refresh({})
        if not row.feasible_count:
            continue
        assert ((row.score[row.feasible()] >= 0) & (row.score[row.feasible()] <= 1)).all()
        at = int(row.best(row.rank, 1)[0])
        table.charge(at, row.request.vector)
        numbers = gpu_scores.take(table, row.request, at)
        assert len(numbers) == (max(1, one.gpu_milli // WHOLE) if one.gpu_milli else 0)
        taken.append((at, numbers, row.request.vector))
        assert (table.gpus.left >= 0).all()
        assert (table.gpus.left.sum(axis=1) == (table.capacity - table.used)[:, 3]).all()
    for at, numbers, vector in taken[keep:]:
        table.credit(at, vector)
        if numbers:
            table.credit_gpus(at, numbers, vector.gpu_milli)
    for at, numbers, vector in taken[:keep]:
        for number in numbers:
            before[at, number] -= vector.gpu_milli // len(numbers)
    assert (table.gpus.left == before).all()


@given(nodes, shapes, st.sampled_from([*strategies.FOR_GPUS, strategies.DEFAULT]))
def test_devices_of_several_replicas_at_once_are_those_of_one_after_the_other(
    plain: list[plain_gpus.Node], asked: Shape, strategy: str
) -> None:
    one_by_one, at_once = (table_of(plain, [(asked, 1.0)]) for _ in range(2))
    row = ClassRow(one_by_one, request_of(asked, strategy))
    for at in range(len(plain)):
        taken = []
        row.refresh({})
        while at in row.feasible():
            one_by_one.charge(at, row.request.vector)
            taken.append(gpu_scores.take(one_by_one, row.request, at))
            row.refresh({})
        if taken:
            at_once.charge(at, row.request.vector * len(taken))
            assert gpu_scores.take_all(at_once, row.request, at, len(taken)) == taken
    assert (at_once.gpus.left == one_by_one.gpus.left).all()
    assert (at_once.gpus.held == one_by_one.gpus.held).all()


def test_what_is_typical_is_the_most_frequent_and_is_told_when_it_has_grown() -> None:
    demand = Demand()
    demand.add(Shape(1_000, 500), 96)
    first = demand.news()
    assert first is not None
    assert [(kind.devices, kind.milli) for kind in first.kinds] == [(1, 500)]
    demand.add(Shape(9_000, 1_000), 4)
    assert demand.news() is None
    demand.add(Shape(2_000, 2_000), 50)
    second = demand.news()
    assert second is not None
    assert [(kind.devices, kind.milli) for kind in second.kinds] == [(1, 500), (2, 1_000)]
    assert np.isclose(second.parts[-1].sum(), 1)
    assert typical({}).kinds == []


def test_a_part_with_an_even_score_goes_where_least_is_left() -> None:
    table = table_of([plain_gpus.Node(ROOM, (("T4", 1_000), ("T4", 530)))], [(Shape(1_000, 470), 1.0)])
    request = request_of(Shape(1_000, 470), strategies.GPU_PACKING)
    table.charge(0, request.vector)
    assert gpu_scores.take(table, request, 0) == (1,)
    assert gpus.room(table, request, np.array([0])).tolist() == [2]
