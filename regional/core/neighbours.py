"""Which replicas count for which rule of nearness: the register of selectors, and of the tasks that they name.

A selector is known while a task asks by it. Its `replicas` are those of all tasks it names; its `keepers`, by domain,
those of all tasks that avoid what it names, and so keep that away. Counts follow each replica through
`TaskEntry.move_copies`; they are one region's and one tenant's. What a task without a spec has left still counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from atoll.errors import require
from regional.core.colocation import Around, Colocating, Counted, News, Selector, Term, colocating_of
from regional.core.records import TaskEntry


@dataclass(slots=True, eq=False)
class _Keepers:
    counted: Counted
    users: int = 0


@dataclass(slots=True, eq=False)
class _Named:
    """A selector in use."""

    selector: Selector
    replicas: Counted
    users: int = 0
    keepers: dict[str, _Keepers] = field(default_factory=dict)  # by what they keep apart within


@dataclass(frozen=True, slots=True)
class _Member:
    workload: str
    labels: Mapping[str, str]
    asked: tuple[Colocating, ...]


@dataclass(slots=True)
class _Tenant:
    tasks: dict[TaskEntry, _Member] = field(default_factory=dict)
    of_workload: dict[str, dict[TaskEntry, None]] = field(default_factory=dict)
    by_name: dict[str, _Named] = field(default_factory=dict)
    by_labels: dict[Selector, _Named] = field(default_factory=dict)

    def find(self, selector: Selector) -> _Named | None:
        return self.by_name.get(selector.workload) if selector.workload else self.by_labels.get(selector)

    def naming(self, member: _Member) -> Iterator[_Named]:
        """The selectors that name a task."""
        if named := self.by_name.get(member.workload):
            yield named
        yield from (n for n in self.by_labels.values() if n.selector.matches(member.workload, member.labels))

    def named_by(self, selector: Selector) -> list[TaskEntry]:
        if selector.workload:
            return list(self.of_workload.get(selector.workload, ()))
        return [task for task, m in self.tasks.items() if selector.matches(m.workload, m.labels)]


class Neighbours:
    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self.news = News()
        self._touched: set[TaskEntry] = set()

    def admit(self, task: TaskEntry) -> None:
        """The task's spec, or its workload's labels, may be others than before."""
        if task.spec is None:
            return
        owner = task.owner
        tenant = self._tenants.setdefault(owner.tenant, _Tenant())
        labels = {label.key: label.value for label in owner.share.metadata.labels}
        member, before = _Member(owner.name, labels, colocating_of(task.spec)), tenant.tasks.get(task)
        if member == before:
            return
        tenant.tasks[task] = member
        tenant.of_workload.setdefault(owner.name, {})[task] = None
        for asked in member.asked:
            self._use(tenant, asked)
        for asked in before.asked if before else ():
            self._drop(tenant, asked)
        self._link(tenant, task)

    def forget(self, task: TaskEntry) -> None:
        """The task is gone, and so are its replicas."""
        tenant = self._tenants.get(task.owner.tenant)
        member = tenant.tasks.pop(task, None) if tenant else None
        if not tenant or not member:
            return
        require(not task.copies, "I7: a task goes with its last replica")
        siblings = tenant.of_workload[member.workload]
        del siblings[task]
        if not siblings:
            del tenant.of_workload[member.workload]
        task.counted, task.around = (), Around(task.copies)
        for asked in member.asked:
            self._drop(tenant, asked)
        if not tenant.tasks:
            del self._tenants[task.owner.tenant]

    def _use(self, tenant: _Tenant, asked: Colocating) -> None:
        selector = asked.selector
        named = tenant.find(selector)
        if named is None:
            named = _Named(selector, Counted(self.news))
            if selector.workload:
                tenant.by_name[selector.workload] = named
            else:
                tenant.by_labels[selector] = named
            self._link_all(tenant, named)
        named.users += 1
        if asked.keeps_away:
            keepers = named.keepers.get(asked.within)
            if keepers is None:
                keepers = named.keepers[asked.within] = _Keepers(Counted(self.news))
                self._link_all(tenant, named)
            keepers.users += 1

    def _drop(self, tenant: _Tenant, asked: Colocating) -> None:
        named = tenant.find(asked.selector)
        require(named is not None, "I7: what is asked for is known")
        assert named is not None
        named.users -= 1
        if asked.keeps_away:
            keepers = named.keepers[asked.within]
            keepers.users -= 1
            if not keepers.users:
                del named.keepers[asked.within]
        if not named.users:
            if named.selector.workload:
                del tenant.by_name[named.selector.workload]
            else:
                del tenant.by_labels[named.selector]
        if not named.users or (asked.keeps_away and asked.within not in named.keepers):
            self._link_all(tenant, named)

    def _link_all(self, tenant: _Tenant, named: _Named) -> None:
        for task in tenant.named_by(named.selector):
            self._link(tenant, task)

    def _link(self, tenant: _Tenant, task: TaskEntry) -> None:
        """Binds the task's rules to what they count, and its replicas to what counts them."""
        member = tenant.tasks[task]
        naming = list(tenant.naming(member))
        counted = [named.replicas for named in naming]
        terms: list[Term] = []
        own: set[Counted] = set()
        for asked in member.asked:
            named = tenant.find(asked.selector)
            if named is None:  # about to be known: all that it names are linked then
                continue
            about = str(asked.selector)
            terms.append(
                Term(asked.within, asked.weight, asked.apart, named.replicas, named.replicas in counted, about)
            )
            if asked.keeps_away and asked.within in named.keepers:
                own.add(named.keepers[asked.within].counted)
        for named in naming:
            for within, keepers in named.keepers.items():
                one = keepers.counted
                about = f"what avoids {named.selector}"
                terms.append(Term(within, 0, apart=True, counted=one, own=one in own, about=about))
        self._count(task, (*counted, *(k for k in own)))
        if task.around.terms != tuple(terms):
            task.around = Around(task.copies, tuple(terms))
            self._touched.add(task)

    @staticmethod
    def _count(task: TaskEntry, counted: tuple[Counted, ...]) -> None:
        for by, these, others in ((-1, task.counted, counted), (1, counted, task.counted)):
            for one in these:
                if one not in others:
                    for row, count in task.copies.items():
                        one.move(row, by * count)
        task.counted = counted

    # ---- waking

    def freed(self, task: TaskEntry) -> None:
        """Replicas of the task have left their nodes, which may cure a rule about its own."""
        self._touched.add(task)

    def curable(self, task: TaskEntry) -> bool:
        """Whether the task's rules may allow more than when `settle` was called last."""
        return task in self._touched or any(term.curable(self.news) for term in task.around.terms)

    def __bool__(self) -> bool:
        return bool(self.news or self._touched)

    def settle(self) -> None:
        self.news.clear()
        self._touched.clear()

    def check(self) -> None:
        """Every count is the sum over the tasks it counts; for tests and the simulator."""
        for tenant in self._tenants.values():
            sums: dict[Counted, dict[int, int]] = {}
            for task, member in tenant.tasks.items():
                known = {named.replicas for named in tenant.naming(member)}
                for asked in member.asked:
                    named = tenant.find(asked.selector)
                    if named and asked.keeps_away:
                        known.add(named.keepers[asked.within].counted)
                require(known == set(task.counted), "I7: replicas count for what names them")
                for one in known:
                    by_row = sums.setdefault(one, {})
                    for row, count in task.copies.items():
                        by_row[row] = by_row.get(row, 0) + count
            for one, by_row in sums.items():
                require(by_row == one.by_row, "I7: a count is the sum of what it counts")
