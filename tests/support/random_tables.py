"""Node tables, requests and changes drawn from a seed: everything that filters and scores look at."""

import random

from atoll.api.v1 import objects_pb2
from atoll.model import strategies
from atoll.model.costs import COST_LABEL
from atoll.model.resources import Vector
from regional.core import gpu_scores
from regional.core.class_row import FEASIBLE, ClassRow
from regional.core.filters import Request, Requirement, Tolerated
from regional.core.node_table import NodeTable
from regional.core.typical import Shape, typical

KEYS, VALUES = ("zone", "disk", "slots", COST_LABEL), ("a", "b", "7", "12", "0.02")
MODELS = ("T4", "A100")
IMAGES = ("web:latest", "db:latest")


class RandomTable:
    def __init__(self, seed: int, nodes: int) -> None:
        self.draw = random.Random(seed)
        self.table = NodeTable()
        self.copies: dict[int, int] = {}
        for _ in range(nodes):
            self.add()
        self.table.expect(typical({Shape(1, 300): 4, Shape(1, 1_000, ("T4",)): 2, Shape(2, 0): 2}))

    def add(self) -> None:
        row = self.table.add(f"n{self.table.version}")
        self.describe(row)
        self.table.set_ready(row, self.draw.random() < 0.9)
        self.table.set_images(row, self.draw.sample(IMAGES, self.draw.randint(0, 2)))

    def describe(self, row: int) -> None:
        draw = self.draw
        labels = {key: draw.choice(VALUES) for key in draw.sample(KEYS, draw.randint(0, 3))}
        taints = [(draw.choice(KEYS), draw.choice(VALUES), draw.randint(1, 3))] if draw.random() < 0.2 else []
        devices = {number: draw.choice(MODELS) for number in range(draw.randint(0, 3))}
        capacity = (*(draw.randint(0, 12) for _ in range(3)), 1_000 * len(devices))
        largest = tuple(amount * 3 // 4 for amount in capacity) if draw.random() < 0.1 else None
        self.table.describe(row, capacity, labels, taints, draw.random() < 0.1, devices, largest)

    def request(self) -> Request:
        draw, chosen = self.draw, [(key, self.draw.choice(VALUES)) for key in self.draw.sample(KEYS, 2)]
        asked = Vector(*(draw.randint(0, 3) for _ in range(3)), draw.choice((0, 0, 300, 1_000)))
        return Request(
            asked,
            selector=tuple(chosen[:1]) if draw.random() < 0.2 else (),
            requires=(Requirement(chosen[1][0], draw.randint(1, 6), (chosen[1][1],)),) if draw.random() < 0.3 else (),
            prefers=((Requirement(chosen[0][0], 1, (chosen[0][1],)), 50),) if draw.random() < 0.3 else (),
            tolerations=(Tolerated(chosen[0][0], "", 0),) if draw.random() < 0.3 else (),
            strategy=draw.choice(strategies.STRATEGIES),
            driver=draw.choice((objects_pb2.DRIVER_UNSPECIFIED, objects_pb2.DRIVER_PROCESS))
            if draw.random() < 0.2
            else 0,
            gpu_models=(draw.choice(MODELS),) if draw.random() < 0.2 else (),
            image=draw.choice(("", *IMAGES)),
            weights=tuple((score, draw.randint(1, 8) / 4) for score in sorted(draw.sample(strategies.SCORES, 3)))
            if draw.random() < 0.2
            else (),
        )

    def place(self, request: Request) -> None:
        """One replica where it fits, first."""
        row = ClassRow(self.table, request)
        row.refresh({})
        for at in row.feasible()[:1].tolist():
            self.table.charge(at, request.vector.amounts())
            gpu_scores.take(self.table, request, at)
            self.copies[at] = self.copies.get(at, 0) + 1

    def change(self) -> None:
        draw, table = self.draw, self.table
        row = draw.randrange(table.size)
        match draw.randint(0, 9):
            case 0:
                self.add()
            case 1:
                self.describe(row)
            case 2:
                table.set_ready(row, not table.ready[row])
            case 3:
                table.set_resting(row, not table.resting[row])
            case 4:
                table.set_unfit(row, "its disk is full" if not table.unfit[row] else "")
            case 5:
                table.set_images(row, draw.sample(IMAGES, draw.randint(0, 2)))
            case 6:
                table.expect(typical({Shape(draw.randint(1, 3), 500): 1, Shape(1, 300): 1}))
            case _:
                self.place(self.request())


def same(one: ClassRow, other: ClassRow) -> None:
    """To the last bit."""
    assert one.refusal.tobytes() == other.refusal.tobytes()
    assert one.rank.tobytes() == other.rank.tobytes()
    assert one.score.tobytes() == other.score.tobytes()
    assert one.counts.tolist() == other.counts.tolist()
    for number in range(len(one.counts) - 2):
        if (one.refusal == number).any():
            assert one.reason(number) == other.reason(number)
    assert one.feasible_count == int((one.refusal == FEASIBLE).sum())
