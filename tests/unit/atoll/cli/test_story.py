import sys

import pytest

from atoll.cli.story import Story


def test_lines_have_times_and_strangers_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story()
    story.chapter("1  A cluster", "atoll dev")
    story.line("up\x1b[2J")
    story.verdict(False, "no")
    said = capsys.readouterr().out.splitlines()
    assert said == ["", "1  A cluster   $ atoll dev", "  0.0 s  up\\x1b[2J", "   FAIL  no"]


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colour_is_for_terminals_that_want_it(
    terminal: bool, no_color: str, coloured: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    Story().title("hello")
    assert ("\x1b[1m" in capsys.readouterr().out) == coloured
