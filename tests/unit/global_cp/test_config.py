"""Settings of the global plane that make no sense are refused where they are read."""

from pathlib import Path

import pytest

from global_cp.config import Settings

FILES = {"certificate": Path("a"), "key": Path("b"), "ca": Path("c")}


def test_a_default_strategy_that_nobody_knows_is_refused() -> None:
    assert Settings(**FILES, default_strategy="spread").default_strategy == "spread"
    with pytest.raises(ValueError, match="default_strategy must be one of bin-pack, "):
        Settings(**FILES, default_strategy="cleverest")
