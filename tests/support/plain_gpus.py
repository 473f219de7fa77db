"""The scores of GPUs as their definitions say, one node and one request at a time; for property tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from atoll.model import strategies
from regional.core.gpu_scores import CPU_SHARE, FILL_RANGE_MILLI, FILL_STEP_MILLI
from regional.core.typical import END, Shape

WHOLE = 1000


@dataclass(frozen=True)
class Node:
    cpu_left: int
    devices: tuple[tuple[str, int], ...]  # model and milli left
    held: tuple[int, ...] = ()  # gpu_milli of each replica on it

    @property
    def left(self) -> int:
        return sum(left for _, left in self.devices)


def placements(node: Node, asked: Shape) -> list[Node]:
    """What the node may become by one more replica: one outcome for each device that a part may be cut from."""
    after = replace(node, cpu_left=node.cpu_left - asked.cpu_milli, held=(*node.held, asked.gpu_milli))
    if not asked.gpu_milli:
        return [replace(after, held=node.held)]
    need, each = max(1, asked.gpu_milli // WHOLE), min(asked.gpu_milli, WHOLE)
    fitting = [
        number
        for number, (model, left) in enumerate(node.devices)
        if left >= each and model in (asked.gpu_models or (model,))
    ]
    if len(fitting) < need:
        return []
    chosen = [fitting[:need]] if asked.gpu_milli >= WHOLE else [[number] for number in fitting]
    return [replace(after, devices=_cut(node.devices, numbers, each)) for numbers in chosen]


def _cut(devices: tuple[tuple[str, int], ...], numbers: list[int], each: int) -> tuple[tuple[str, int], ...]:
    return tuple((model, left - each * (n in numbers)) for n, (model, left) in enumerate(devices))


def fragmentation(node: Node, typical: Sequence[tuple[Shape, float]]) -> float:
    """Milli that a typical request cannot use, in the mean."""
    sum_ = 0.0
    for shape, part in typical:
        each = min(shape.gpu_milli, WHOLE)
        too_small = [left for model, left in node.devices if left < each or model not in (shape.gpu_models or (model,))]
        runs = len(node.devices) - len(too_small) >= max(1, shape.gpu_milli // WHOLE)
        lost = sum(too_small) if shape.gpu_milli and runs and node.cpu_left >= shape.cpu_milli else node.left
        sum_ += part * lost
    return sum_ + node.left * (1 - sum(part for _, part in typical))


def fill(node: Node, typical: Sequence[tuple[Shape, float]]) -> float:
    return sum(
        _fill(
            model,
            left,
            min(node.cpu_left, CPU_SHARE * node.cpu_left * left // max(node.left, 1)),
            [(s, p) for s, p in typical if s.gpu_milli],
        )
        for model, left in node.devices
    )


def _fill(model: str, left: int, cpu_left: int, typical: Sequence[tuple[Shape, float]]) -> float:
    fitting = [
        (min(s.gpu_milli, WHOLE), part * max(1, s.gpu_milli // WHOLE))
        for s, part in typical
        if s.cpu_milli <= cpu_left and min(s.gpu_milli, WHOLE) <= left and model in (s.gpu_models or (model,))
    ]
    filled = sum(part * (each + _fill(model, left - each, cpu_left, typical)) for each, part in fitting)
    return filled / (sum(part for _, part in fitting) + END)


def gains(strategy: str, node: Node, asked: Shape, typical: Sequence[tuple[Shape, float]]) -> list[float]:
    """Of each of the node's `placements`."""
    if strategy == strategies.FGD:
        before = fragmentation(node, typical)
        return [before - fragmentation(after, typical) for after in placements(node, asked)]
    before = fill(node, typical)
    return [fill(after, typical) - before for after in placements(node, asked)]


def score(strategy: str, gain: float) -> float:
    if strategy == strategies.FGD:
        return math.floor(100 / (1 + math.exp(-gain / 1000))) / 100
    return 0.5 + math.floor(gain / FILL_STEP_MILLI + 1e-9) * FILL_STEP_MILLI / FILL_RANGE_MILLI


def published(strategy: str, node: Node, asked: Shape, largest_cpu: int, largest_gpu: int) -> float:
    """The best of the node's `placements` by a policy that fgd was compared with, before it is rounded to hundredths.
    `largest`: what the largest node has of each."""
    outcomes = placements(node, asked)
    cpu, gpu = largest_cpu, max(largest_gpu, 1)
    match strategy:
        case strategies.GPU_BEST_FIT:
            after = outcomes[0]
            return 1 - after.cpu_left / cpu / 2 - after.left / gpu / 2
        case strategies.DOT_PRODUCT:
            alike = node.cpu_left / cpu * (asked.cpu_milli / cpu) + node.left / gpu * (asked.gpu_milli / gpu)
            return 1 - alike / 2
        case _ if not asked.gpu_milli:
            return 0.0
        case strategies.GPU_PACKING:
            return max(_packed(node, after, asked) for after in outcomes) / 100
        case _:
            return _clustered(node, asked, gpu) / 100


def _packed(node: Node, after: Node, asked: Shape) -> int:
    devices = len(node.devices)
    if node.left == devices * WHOLE:
        return max(33 - devices, devices)
    if asked.gpu_milli >= WHOLE:
        return max(50 - asked.gpu_milli // WHOLE, 33)
    (cut,) = [was for (_, was), (_, left) in zip(node.devices, after.devices, strict=True) if was != left]
    return 49 if cut == WHOLE else max(100 - cut * 100 // WHOLE // 10, 50)


def _clustered(node: Node, asked: Shape, largest_gpu: int) -> int:
    sorts, own = {milli // WHOLE for milli in node.held}, asked.gpu_milli // WHOLE
    alone, mixed = (75, 50) if own in sorts else (25, 0)
    base = alone if not sorts - {own} else mixed
    return base + 25 * (largest_gpu - node.left) // largest_gpu


def hundredths(value: float) -> float:
    """Rounded down; what lacks less than a hundredth of one is taken for it."""
    return math.floor(min(max(value, 0.0), 1.0) * 100 + 0.01) / 100
