"""Tells what happens, as it happens: chapters, and lines with the seconds since the chapter's beginning.

Plain text to standard output, at once. Bold, dim and colour only on a terminal that wants them (NO_COLOR, TERM=dumb).
"""

import os
import sys
import time

from atoll.cli import output

_BOLD, _DIM, _GREEN, _RED, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"
_INDENT = " " * 9


class Story:
    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._opened = time.monotonic()
        self._began = self._opened

    def title(self, text: str) -> None:
        output.write(self._in(_BOLD, text) + "\n")

    def chapter(self, text: str, command: str = "") -> None:
        """`command`: what a user types for the same. Times count from here."""
        shown = self._in(_BOLD, text) + (self._in(_DIM, f"   $ {command}") if command else "")
        output.write(f"\n{shown}\n")
        self._began = time.monotonic()

    def restart(self) -> None:
        """Times count from here."""
        self._began = time.monotonic()

    def line(self, text: str) -> None:
        """With the time."""
        output.write(f"{self._in(_DIM, f'{self.chapter_s:5.1f} s')}  {output.visible(text)}\n")

    def detail(self, text: str) -> None:
        """Without one."""
        output.write(f"{_INDENT}{output.visible(text)}\n")

    def verdict(self, good: bool, text: str) -> None:
        mark = self._in(_GREEN, "PASS") if good else self._in(_RED, "FAIL")
        output.write(f"   {mark}  {output.visible(text)}\n")

    @property
    def chapter_s(self) -> float:
        """Since times count."""
        return time.monotonic() - self._began

    @property
    def elapsed_s(self) -> float:
        """Since the first word."""
        return time.monotonic() - self._opened

    def _in(self, style: str, text: str) -> str:
        return f"{style}{text}{_PLAIN}" if self._colour else text
