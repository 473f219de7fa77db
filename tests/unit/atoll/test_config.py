"""Settings from files and environment."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from atoll.config import load
from atoll.errors import Invalid


@dataclass(frozen=True, slots=True)
class Settings:
    name: str
    key: Path
    etcd: tuple[str, ...] = ()
    lanes: int = 1
    grace_s: float = 1.5
    open: bool = False
    region: str | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise ValueError("lanes must be at least 1")


def read(tmp_path: Path, toml: str, environment: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "settings.toml"
    path.write_text(toml, encoding="utf-8")
    return load(Settings, path, "ATOLL_T_", environment or {})


def mistakes(tmp_path: Path, toml: str, environment: dict[str, str] | None = None) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        read(tmp_path, toml, environment)
    return {mistake.path: mistake.message for mistake in caught.value.mistakes}


def test_every_kind_from_a_file(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        """
        name = "r1"
        key = "tls/key.pem"
        etcd = ["127.0.0.1:2379", "127.0.0.1:2380"]
        lanes = 4
        grace_s = 2
        open = true
        region = "east"
        labels = { zone = "a" }
        """,
    )
    key = tmp_path / "tls/key.pem"
    assert settings == Settings("r1", key, ("127.0.0.1:2379", "127.0.0.1:2380"), 4, 2.0, True, "east", {"zone": "a"})


def test_every_kind_from_the_environment() -> None:
    environment = {
        "ATOLL_T_NAME": "123",
        "ATOLL_T_KEY": "/k",
        "ATOLL_T_ETCD": "a:1, b:2",
        "ATOLL_T_LANES": "4",
        "ATOLL_T_GRACE_S": "2.5",
        "ATOLL_T_OPEN": "true",
        "ATOLL_T_REGION": "east",
        "ATOLL_T_LABELS": "zone=a,disk=ssd",
        "OTHER_LANES": "7",
    }
    assert load(Settings, None, "ATOLL_T_", environment) == Settings(
        "123", Path("/k"), ("a:1", "b:2"), 4, 2.5, True, "east", {"zone": "a", "disk": "ssd"}
    )


def test_the_environment_wins_and_the_rest_keeps_its_default(tmp_path: Path) -> None:
    settings = read(tmp_path, 'name = "a"\nkey = "/k"', {"ATOLL_T_NAME": "b"})
    assert settings == Settings("b", Path("/k"))


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    found = mistakes(tmp_path, 'nmae = "x"\nlanes = "four"\netcd = "a"', {"ATOLL_T_OPEN": "perhaps", "ATOLL_T_ZZ": ""})
    assert found == {
        "nmae": "is not a setting: did you mean 'name'?",
        "lanes": "Expected `int`, got `str`",
        "etcd": "Expected `array`, got `str`",
        "ATOLL_T_OPEN": "Expected `bool`, got `str`",
        "ATOLL_T_ZZ": "is not a setting",
        "name": "is missing",
        "key": "is missing",
    }


def test_a_number_is_no_text_and_a_fraction_no_count(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "name = 1\nkey = 2\nlanes = 1.5").keys() == {"name", "key", "lanes"}


def test_bounds_belong_to_the_settings(tmp_path: Path) -> None:
    assert mistakes(tmp_path, 'name = "a"\nkey = "/k"\nlanes = 0') == {"": "lanes must be at least 1"}


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"name = 'a'\nname = 'b'"])
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    with pytest.raises(Invalid, match="cannot be read"):
        load(Settings, path, "ATOLL_T_", {})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        load(Settings, tmp_path / "none.toml", "ATOLL_T_", {})
