from pathlib import Path

import pytest

from agent.config import Settings, Timing
from atoll import config
from atoll.errors import Invalid

WHOLE = """
name = "n1"
region_programs = ["127.0.0.1:7171"]
ca = "ca.crt"
state_dir = "state"
labels = {zone = "a"}

[timing]
grace_ms = 5
"""


def load(folder: Path, text: str) -> Settings:
    path = folder / "agent.toml"
    path.write_text(text)
    return config.load(Settings, path, "ATOLL_AGENT_", {})


def test_a_file_becomes_settings(tmp_path: Path) -> None:
    found = load(tmp_path, WHOLE)
    assert (found.state_dir, found.labels) == (tmp_path / "state", {"zone": "a"})
    assert found.timing == Timing(grace_ms=5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('"127.0.0.1:7171"', ""), "region_programs needs at least one address"),
        (('name = "n1"', 'name = "n1"\ndriver = "dokcer"'), "driver 'dokcer' is not one of"),
        (('name = "n1"', 'nmae = "n1"'), "did you mean 'name'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    with pytest.raises(Invalid) as refused:
        load(tmp_path, WHOLE.replace(*change))
    assert any(told in mistake.message for mistake in refused.value.mistakes)
