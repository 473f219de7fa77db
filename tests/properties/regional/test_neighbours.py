"""Counts of nearness follow every change of specs, labels and replicas; and terms are those of the definition."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.api.v1 import objects_pb2
from atoll.manifest.selectors import parse_requirement
from regional.core.neighbours import Neighbours
from regional.core.records import TaskEntry, WorkloadEntry

NAMES, LABELS, WITHIN = ("a", "b", "c"), ("x=1", "x=2", "y", "!y"), ("node", "zone")
rules = st.lists(
    st.builds(
        lambda name, labels, within, weight: objects_pb2.Colocation(
            workload=name, labels=[] if name else [parse_requirement(labels)], within=within, weight=weight
        ),
        st.sampled_from(("", *NAMES)),
        st.sampled_from(LABELS),
        st.sampled_from(WITHIN),
        st.sampled_from((0, 0, 50)),
    ),
    max_size=2,
)
labels = st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"))
steps = st.one_of(
    st.tuples(st.just("admit"), st.sampled_from(NAMES), labels, rules, rules),
    st.tuples(st.just("move"), st.sampled_from(NAMES), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("forget"), st.sampled_from(NAMES)),
)


@given(st.lists(steps, max_size=24))
def test_counts_are_sums_and_terms_are_mutual(history: list[tuple[object, ...]]) -> None:
    neighbours = Neighbours()
    tasks: dict[str, TaskEntry] = {}
    for kind, name, *rest in history:
        assert isinstance(name, str)
        task = tasks.get(name)
        match kind, rest:
            case "admit", [dict() as said, list() as near, list() as apart]:
                if task is None:
                    task = tasks[name] = TaskEntry(WorkloadEntry("acme", name, b""), "main", b"")
                pairs = [objects_pb2.Label(key=k, value=v) for k, v in said.items()]
                task.owner.share = objects_pb2.Share(metadata=objects_pb2.Metadata(labels=pairs))
                task.spec = objects_pb2.Task(colocate_with=near, avoid_colocating=apart)
                neighbours.admit(task)
            case "move", [int() as row, bool() as more] if task and (more or task.copies.get(row)):
                task.move_copies(row, 1 if more else -1)
            case "forget", [] if task and not task.copies:
                neighbours.forget(tasks.pop(name))
        neighbours.check()
    for task in tasks.values():
        refused = {(t.within, row) for t in task.around.terms if t.apart and not t.weight for row in t.counted.by_row}
        assert refused == {
            (rule.within, row)
            for other in tasks.values()
            for one, two in ((task, other), (other, task))
            for rule in one.spec.avoid_colocating  # type: ignore[union-attr]
            if not rule.weight and _names(rule, two)
            for row in other.copies
        }


def _names(rule: objects_pb2.Colocation, task: TaskEntry) -> bool:
    found = {label.key: label.value for label in task.owner.share.metadata.labels}
    if rule.workload:
        return rule.workload == task.owner.name
    (demand,) = rule.labels
    absent, listed = objects_pb2.SELECTOR_OPERATOR_DOES_NOT_EXIST, objects_pb2.SELECTOR_OPERATOR_IN
    if demand.operator == absent:
        return demand.key not in found
    return demand.key in found and (demand.operator != listed or found[demand.key] in demand.values)
