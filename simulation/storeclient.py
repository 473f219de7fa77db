"""One process's way to the store, with the faults a write can meet. Verified against nothing: it *is* the fault model.

Decides when a transaction is applied and what the sender hears of it. The store itself is the memory store, which the
contract suite holds to a real etcd.
"""

from collections.abc import Callable

from atoll.store.memory_state import MemoryState
from atoll.store.store import NotSent, Outcome, Put, Read, Txn, Unknown, prefix_end
from simulation.faults import NO_FAULTS, Faults
from simulation.kernel import Kernel

DEADLINE_MS = 300
LATEST_MS = 5_000  # how late a transaction of unknown outcome may still be applied

Done = Callable[[Outcome], None]


class StoreClient:
    def __init__(self, kernel: Kernel, state: MemoryState, faults: Faults) -> None:
        self._kernel = kernel
        self._state = state
        self._faults = faults
        self._mishaps: tuple[tuple[float, Callable[[Txn, Done], None]], ...] = (
            (faults.not_sent, self._not_sent),
            (faults.unknown_before, self._lost_before),
            (faults.unknown_after, self._lost_after),
            (faults.unknown_late, self._late),
        )
        self.cut_off = False  # nothing gets through, while the process talks to all others as before
        self.unknowns = 0

    def heal(self) -> None:
        """From now on every transaction is answered."""
        self._faults, self._mishaps, self.cut_off = NO_FAULTS, (), False

    def transact(self, txn: Txn, done: Done) -> None:
        """Sends once; `done` hears one outcome."""
        kernel = self._kernel
        for operation in txn.success:
            if type(operation) is Put:
                kernel.note(operation.key)
                kernel.note(operation.value)
        if self.cut_off:
            (self._not_sent if kernel.chance(0.5) else self._lost_before)(txn, done)
            return
        draw = kernel.random.random()
        for probability, act in self._mishaps:
            if draw < probability:
                act(txn, done)
                return
            draw -= probability
        latency = kernel.between(1, 1000) if kernel.chance(self._faults.slow_store) else kernel.between(1, 4)
        kernel.after(latency, b"store", lambda: self._answer(self._state.transact(txn), done))

    def list_all(self, prefix: bytes, done: Callable[[Read], None]) -> None:
        """Every key under `prefix`, as of the moment the store answers; asked again until it does."""
        kernel = self._kernel

        def read() -> None:
            if self.cut_off:
                kernel.after(DEADLINE_MS, b"list", read)
            else:
                done(self._state.range(prefix, prefix_end(prefix)))

        kernel.after(kernel.between(1, 4), b"list", read)

    def _answer(self, outcome: Outcome, done: Done) -> None:
        self._kernel.after(1, b"answer", lambda: done(outcome))

    def _not_sent(self, txn: Txn, done: Done) -> None:
        self._kernel.after(1, b"not-sent", lambda: done(NotSent("no connection")))

    def _lost_before(self, txn: Txn, done: Done) -> None:
        self._unknown(done)

    def _lost_after(self, txn: Txn, done: Done) -> None:
        self._kernel.after(2, b"store", lambda: self._silently(txn))
        self._unknown(done)

    def _late(self, txn: Txn, done: Done) -> None:
        self._kernel.after(self._kernel.between(1, LATEST_MS), b"store-late", lambda: self._silently(txn))
        self._unknown(done)

    def _silently(self, txn: Txn) -> None:
        self._state.transact(txn)

    def _unknown(self, done: Done) -> None:
        self.unknowns += 1
        self._kernel.after(DEADLINE_MS, b"deadline", lambda: done(Unknown("deadline")))
