"""The file of contexts: kept private, read back exactly, refused when it is not ours."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll import errors
from atoll.sdk import contexts
from atoll.sdk.contexts import Connection, Contexts

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATOLL_CONFIG", str(tmp_path / "config.toml"))
    for name in ("CONTEXT", "ADDRESS", "CA", "TOKEN", "CERTIFICATE", "KEY", "TENANT", "ETCD_ENDPOINTS"):
        monkeypatch.delenv(f"ATOLL_{name}", raising=False)
    return tmp_path


@given(st.dictionaries(TEXT, st.builds(Connection, *[TEXT] * len(Connection.__slots__)), max_size=3), TEXT)
def test_what_is_saved_reads_back(
    tmp_path_factory: pytest.TempPathFactory, named: dict[str, Connection], current: str
) -> None:
    path = tmp_path_factory.mktemp("contexts") / "config.toml"
    saved = Contexts(current, dict(sorted(named.items())))
    contexts.save(saved, path)
    assert contexts.load(path) == saved


def test_only_the_owner_can_read_it(home: Path) -> None:
    path = contexts.save(Contexts("a", {"a": Connection(token="secret")}))
    assert path.stat().st_mode & 0o077 == 0
    assert "secret" not in repr(contexts.load())


def test_the_environment_goes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts.save(Contexts("a", {"a": Connection("here:1", "ca", "", "cert", "key", "t"), "b": Connection("there:1")}))
    assert contexts.connection().address == "here:1"
    assert contexts.connection("b").address == "there:1"
    monkeypatch.setenv("ATOLL_TOKEN", "T")
    monkeypatch.setenv("ATOLL_TENANT", "other")
    assert contexts.connection() == Connection("here:1", "ca", "T", "", "", "other")
    monkeypatch.setenv("ATOLL_ETCD_ENDPOINTS", "a:1 b:2")
    assert contexts.connection().etcd_endpoints == "a:1 b:2"
    monkeypatch.setenv("ATOLL_CONTEXT", "b")
    assert contexts.connection().address == "there:1"


def test_an_unknown_context_names_the_known_ones(home: Path) -> None:
    contexts.save(Contexts("", {"prod": Connection()}))
    with pytest.raises(errors.Invalid, match="prod"):
        contexts.connection("prud")


@pytest.mark.parametrize("content", ["current = 1", "[context.a]\nport = 1", "not toml", "context = 1"])
def test_a_file_that_is_not_ours_is_refused(home: Path, content: str) -> None:
    contexts.config_path().write_text(content)
    with pytest.raises(errors.Invalid):
        contexts.load()
