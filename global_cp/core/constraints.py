"""What may be said of where a task runs, beyond the shape of each word: nearness to workloads, and contradictions.

Decides whether constraints could hold on any node at all, by their words alone. Whether such a node exists is for the
region: nodes come and go.
"""

from collections.abc import Iterator, Sequence

from atoll.api.v1 import objects_pb2
from atoll.errors import Mistake
from atoll.model.names import mistake_in_label_key, mistake_in_name
from atoll.model.selectors import contradiction, mistake_in_requirement, spelt

MOST_COLOCATIONS = 8

Mistakes = Iterator[Mistake]


def mistakes_in_colocations(task: objects_pb2.Task, path: str) -> Mistakes:
    near, apart = task.colocate_with, task.avoid_colocating
    for name, rules in (("colocateWith", near), ("avoidColocating", apart)):
        if len(rules) > MOST_COLOCATIONS:
            yield Mistake(f"{path}.{name}", f"at most {MOST_COLOCATIONS} rules are allowed")
        for index, rule in enumerate(rules):
            here = f"{path}.{name}[{index}]"
            yield from _colocation(rule, here)
            if any(_alike(rule, other) for other in rules[:index]):
                yield Mistake(here, "stands twice")
    for index, rule in enumerate(apart):
        if any(_alike(rule, other) and not (rule.weight or other.weight) for other in near):
            yield Mistake(f"{path}.avoidColocating[{index}]", "contradicts colocateWith, which asks for the same")


def _colocation(rule: objects_pb2.Colocation, path: str) -> Mistakes:
    if bool(rule.workload) == bool(rule.labels):
        yield Mistake(path, "names a workload, or labels of workloads: one of the two")
    if rule.workload and (mistake := mistake_in_name(rule.workload)):
        yield Mistake(f"{path}.workload", mistake)
    for index, requirement in enumerate(rule.labels):
        if mistake := mistake_in_requirement(requirement):
            yield Mistake(f"{path}.labels[{index}]", mistake)
    if mistake := mistake_in_label_key(rule.within):
        yield Mistake(f"{path}.within", mistake)
    if not 0 <= rule.weight <= 100:
        yield Mistake(f"{path}.weight", f"{rule.weight} is not allowed: 0 to 100")


def _alike(one: objects_pb2.Colocation, other: objects_pb2.Colocation) -> bool:
    """Whether two rules are about the same workloads and domains."""
    same = one.workload == other.workload and one.within == other.within
    return same and list(one.labels) == list(other.labels)


def contradictions(task: objects_pb2.Task, path: str) -> Mistakes:
    """Demands on one label of a node that no value of it meets. Silent about demands that are mistakes themselves."""
    selected = [
        objects_pb2.LabelRequirement(key=label.key, operator=objects_pb2.SELECTOR_OPERATOR_IN, values=[label.value])
        for label in task.node_selector
    ]
    by_key: dict[str, list[objects_pb2.LabelRequirement]] = {}
    for requirement in (*selected, *task.requires):
        if mistake_in_requirement(requirement):
            return
        by_key.setdefault(requirement.key, []).append(requirement)
    for index, requirement in enumerate(task.requires):
        demands = by_key.pop(requirement.key, [])
        if contradiction(demands):
            yield Mistake(f"{path}.requires[{index}]", f"no node can meet {_told(demands)} at once")


def _told(demands: Sequence[objects_pb2.LabelRequirement]) -> str:
    return " and ".join(map(spelt, demands))
