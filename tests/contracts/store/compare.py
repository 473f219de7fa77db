"""One random program on the memory store and on a real etcd: every answer and the final state must be the same.

`python -m tests.contracts.store.compare --operations 100000 --seed 1` prints operations, differences and seconds.
Both stores start fresh, so revisions are compared too; lease ids, which etcd draws, are compared by their order.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from atoll.store.etcd import EtcdStore
from atoll.store.memory import MemoryStore
from atoll.store.store import (
    Applied,
    Batch,
    Change,
    Compare,
    Delete,
    Get,
    KeyValue,
    Operation,
    Put,
    Read,
    Refused,
    Relation,
    Store,
    StoreError,
    Target,
    Txn,
    not_written_since,
    prefix_end,
)
from tests.support.etcd import EtcdCluster

ROOT = b"/p/"
_KEYS = tuple(ROOT + name.encode() for name in ("a", "a/1", "a/2", "b", "b/1", "b/1/x", "c", "d", "e", "z\xff"))
_RANGES = ((b"a", b"b"), (b"a/", b"a0"), (b"b", b"\xff"), (b"", b"\xff"), (b"c", b"c"), (b"d", b"a"))
_LEASE_TTL_S = 3_600  # none expires while the program runs: when is etcd's choice


@dataclass(frozen=True)
class Step:
    """One call: `method` of the store, its arguments, and the lease (by order of grant) it is about, if any."""

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    lease: int | None = None


@dataclass
class Side:
    """One of the two stores, with the leases it granted in order."""

    store: Store
    leases: list[int] = field(default_factory=list)

    async def do(self, step: Step) -> object:
        """The answer, in words both sides share."""
        arguments = dict(step.arguments)
        if step.lease is not None:
            arguments["lease_id"] = self.leases[step.lease]
        if "txn" in arguments:
            arguments["txn"] = self._with_real_leases(arguments["txn"])
        try:
            call: Callable[..., Awaitable[object]] = getattr(self.store, step.method)
            answer = await call(**arguments, deadline_s=20.0)
        except StoreError as error:
            return type(error).__name__
        if step.method == "grant":
            self.leases.append(answer.id)  # type: ignore[attr-defined]
        return self._shared(answer)

    async def history(self, start: int, until: int) -> list[Batch]:
        """What a watch brings from `start` to `until`."""
        found: list[Batch] = []
        async with asyncio.timeout(60), self.store.watch(ROOT, start_revision=start, previous=True) as batches:
            async for batch in batches:
                if batch.changes:
                    found.append(Batch(batch.revision, tuple(map(self._change, batch.changes))))
                if batch.revision >= until:
                    break
        return found

    def _with_real_leases(self, txn: Txn) -> Txn:
        def real(operation: Operation) -> Operation:
            if isinstance(operation, Put) and operation.lease:
                return operation._replace(lease=self.leases[operation.lease - 1])
            return operation

        return txn._replace(success=tuple(map(real, txn.success)), failure=tuple(map(real, txn.failure)))

    def _shared(self, answer: object) -> object:
        match answer:
            case Applied():
                return answer._replace(reads=tuple(map(self._item, answer.reads)))
            case Refused():
                return replace(answer, message="", reads=tuple(map(self._item, answer.reads)))
            case Read():
                return answer.revision, answer.more, tuple(map(self._item, answer.items))
            case (None | KeyValue() as item, revision):
                return self._item(item), revision
            case int() | None:
                return answer
        return type(answer).__name__

    def _item(self, item: KeyValue | None) -> KeyValue | None:
        if item is None or not item.lease:
            return item
        return item._replace(lease=self.leases.index(item.lease) + 1)

    def _change(self, change: Change) -> Change:
        return Change(change.key, self._item(change.item), self._item(change.previous))


class Program:
    """Draws one step after the other; knows only what it may name: the newest revision and how many leases exist."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.revision = 1
        self.leases = 0

    def step(self) -> Step:
        kinds = ("txn", "get", "range", "grant", "revoke", "keep_alive", "compact")
        (kind,) = self._draw.choices(kinds, (70, 8, 14, 2, 1.5, 1.5, 0.5))
        if kind in ("revoke", "keep_alive") and not self.leases:
            kind = "grant"
        match kind:
            case "get":
                return Step("get", {"key": self._key()})
            case "range":
                return Step("range", self._range())
            case "grant":
                self.leases += 1
                return Step("grant", {"ttl_s": _LEASE_TTL_S})
            case "revoke" | "keep_alive":
                return Step(kind, lease=self._draw.randrange(max(0, self.leases - 6), self.leases))
            case "compact":
                return Step("compact", {"revision": max(1, self.revision - self._draw.randint(-1, 60))})
        return Step("transact", {"txn": self._txn()})

    def _txn(self) -> Txn:
        draw = self._draw
        if draw.random() < 0.002:
            return Txn(success=tuple(Get(self._key()) for _ in range(draw.choice((128, 129)))))
        compares = tuple(self._compare() for _ in range(draw.choice((0, 0, 1, 1, 2, 3))))
        return Txn(compares, self._branch(), self._branch())

    def _branch(self) -> tuple[Operation, ...]:
        return tuple(self._operation() for _ in range(self._draw.choice((0, 1, 1, 1, 2, 3, 5))))

    def _operation(self) -> Operation:
        draw = self._draw
        kind = draw.random()
        if kind < 0.55:
            lease = draw.randint(max(1, self.leases - 5), self.leases) if self.leases and draw.random() < 0.15 else 0
            return Put(self._key(), b"%d" % draw.randrange(6) * draw.randrange(3), lease)
        if kind < 0.75:
            return Get(self._key())
        if kind < 0.92:
            return Delete(self._key())
        return Delete(*self._bounds())

    def _compare(self) -> Compare:
        draw = self._draw
        if draw.random() < 0.15:
            return not_written_since(self._key(), 0)
        if draw.random() < 0.1:
            return not_written_since(self._key(), max(0, self.revision - draw.randrange(20)))
        target = draw.choice(list(Target))
        relation = draw.choice(list(Relation))
        operand: int | bytes = draw.randrange(4)
        if target is Target.VALUE:
            operand = b"%d" % draw.randrange(6) * draw.randrange(3)
        elif target is not Target.VERSION:
            operand = draw.choice((0, self.revision, max(0, self.revision - draw.randrange(20))))
        return Compare(self._key(), target, relation, operand)

    def _range(self) -> dict[str, Any]:
        draw = self._draw
        key, range_end = self._bounds()
        revision = draw.choice((0, 0, max(0, self.revision - draw.randint(-2, 80))))
        limit, keys_only = draw.choice((0, 1, 2, 5, 100)), draw.random() < 0.2
        return {"key": key, "range_end": range_end, "revision": revision, "limit": limit, "keys_only": keys_only}

    def _bounds(self) -> tuple[bytes, bytes]:
        start, end = self._draw.choice(_RANGES)
        return ROOT + start, ROOT + end

    def _key(self) -> bytes:
        return self._draw.choice(_KEYS)


@dataclass
class Result:
    operations: int = 0
    revisions: int = 0
    differences: list[str] = field(default_factory=list)


async def compare(memory: Store, etcd: Store, *, operations: int, seed: int, history_every: int = 500) -> Result:
    """Both stores must be fresh. Stops at the first difference: what follows one means nothing."""
    program, result = Program(seed), Result()
    sides = Side(memory), Side(etcd)
    seen = 0
    for n in range(1, operations + 1):
        step = program.step()
        if step.method == "compact" or n % history_every == 0 or n == operations:
            seen = await _compare_history(sides, seen, program.revision, result)
        ours, theirs = [await side.do(step) for side in sides]
        result.operations = n
        if ours != theirs:
            result.differences.append(f"operation {n}, seed {seed}: {step}\n  memory: {ours}\n  etcd:   {theirs}")
        if result.differences:
            break
        program.revision = (await memory.get(ROOT))[1]
    states = [await side.do(Step("range", {"key": b"/", "range_end": prefix_end(b"/")})) for side in sides]
    if states[0] != states[1]:
        result.differences.append(f"final state\n  memory: {states[0]}\n  etcd:   {states[1]}")
    result.revisions = program.revision
    return result


async def _compare_history(sides: tuple[Side, Side], seen: int, until: int, result: Result) -> int:
    """Compares what a watch brings after `seen`, up to `until`; the new `seen`."""
    if until > max(seen, 1):
        ours, theirs = [await side.history(seen + 1, until) for side in sides]
        if ours != theirs:
            result.differences.append(f"watch {seen + 1} to {until}\n  memory: {ours}\n  etcd:   {theirs}")
    return until


async def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--operations", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=1)
    asked = arguments.parse_args()
    with EtcdCluster(fsync=False) as cluster:
        etcd = await EtcdStore.connect(cluster.endpoints)
        began_s = time.monotonic()
        result = await compare(MemoryStore(), etcd, operations=asked.operations, seed=asked.seed)
        seconds = time.monotonic() - began_s
        await etcd.close()
    for difference in result.differences:
        print(difference)
    print(
        f"operations {result.operations} revisions {result.revisions} "
        f"differences {len(result.differences)} seconds {seconds:.1f} seed {asked.seed}"
    )
    return 1 if result.differences else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
