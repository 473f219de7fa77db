"""One seed is one history: in another process, under another PYTHONHASHSEED, and down to the bytes that travel."""

import json
import os
import subprocess
import sys

import pytest

from simulation.history import run
from simulation.kernel import Kernel
from simulation.network import Network


def replayed(seed: int, events: int, hash_seed: str) -> dict[str, object]:
    command = [sys.executable, "-m", "simulation", "replay", str(seed), "--events", str(events)]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    outcome: dict[str, object] = json.loads(done.stdout)
    return outcome


@pytest.mark.parametrize("seed", [3, 13, 24, 27])
def test_the_same_seed_is_the_same_history_in_two_processes(seed: int) -> None:
    first, second = replayed(seed, 10_000, "1"), replayed(seed, 10_000, "2")
    assert first == second
    assert first["bindings"], "something happened"


def test_the_digest_sees_the_content_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another byte somewhere, with the same events at the same times, is another digest."""
    plain = run(1, 1_000)
    on_the_wire = Network.on_the_wire

    def another_byte(self: Network, message: object) -> bytes:
        self.kernel.note(b"?")
        return on_the_wire(self, message)  # type: ignore[arg-type]

    monkeypatch.setattr(Network, "on_the_wire", another_byte)
    other = run(1, 1_000)
    assert (other.events, other.bindings) == (plain.events, plain.bindings)
    assert other.digest != plain.digest


def test_events_of_one_moment_happen_in_the_order_of_scheduling() -> None:
    kernel, seen = Kernel(1), []
    for name in (b"b", b"a", b"c"):
        kernel.after(5, name, lambda name=name: seen.append(name))  # type: ignore[misc]
    kernel.after(1, b"first", lambda: kernel.after(4, b"last", lambda: seen.append(b"last")))
    kernel.run()
    assert seen == [b"b", b"a", b"c", b"last"]
