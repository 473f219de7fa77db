"""Settings of the global plane that make no sense are refused where they are read."""

from pathlib import Path

import pytest

from global_cp.config import Settings

FILES = {"certificate": Path("a"), "key": Path("b"), "ca": Path("c")}


def test_a_default_strategy_that_nobody_knows_is_refused() -> None:
    assert Settings(**FILES, default_strategy="spread").default_strategy == "spread"
    with pytest.raises(ValueError, match="default_strategy must be one of bin-pack, "):
        Settings(**FILES, default_strategy="cleverest")


@pytest.mark.parametrize(
    "wrong",
    [{"webhooks": ("hooks.example.com",)}, {"webhooks": ("https://u@a/",)}, {"webhook_networks": ("10.0.0.1/8",)}],
)
def test_webhooks_that_say_no_place_are_refused(wrong: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong.values()))[0].partition("/")[0]):
        Settings(**FILES, **wrong)  # type: ignore[arg-type]
