"""One line on standard error that grows while a workload comes up; rewritten in place on a terminal."""

import sys
import time
from types import TracebackType
from typing import Self

from atoll.cli.output import visible
from atoll.sdk.progress import Progress


class ProgressLine:
    """`hello: admitted → queued → bound 3/3 → started → ready 3/3 → serving 3/3 (1.9 s)`; or, when it `leaves`,
    `hello: 3 running → gone (0.4 s)`."""

    def __init__(self, name: str, *, leaves: bool = False) -> None:
        self._name = visible(name)
        self._leaves = leaves
        self._began = time.monotonic()
        self._shown = ""
        self._most = 0  # replicas that ran while it went; a status that is behind says none
        self._live = sys.stderr.isatty()

    def update(self, progress: Progress) -> None:
        self._most = max(self._most, progress.started)
        self._show(f"{self._most} running" if self._leaves else " → ".join(progress.steps()))

    def _show(self, steps: str) -> None:
        if steps == self._shown:
            return
        self._shown = steps
        if self._live:
            sys.stderr.write(f"\r\x1b[K {self._name}: {steps}")
        sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            elapsed = f"({time.monotonic() - self._began:.1f} s)" if error is None else ""
            if self._leaves and error is None:
                self._shown += " → gone"
            start = "\r\x1b[K" if self._live else ""
            sys.stderr.write(f"{start} {self._name}: {self._shown} {elapsed}".rstrip() + "\n")
        sys.stderr.flush()
