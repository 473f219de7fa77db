"""Which etcd is found, and which versions are refused."""

from pathlib import Path

import pytest

from atoll.store import binary


def fake_etcd(folder: Path, says: str) -> Path:
    path = folder / "etcd"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", ["3.4.22", "3.4.23", "3.4.42", "3.5.6", "3.5.33", "3.6.0", "3.6.0-rc.3", "3.7.1"])
def test_good_versions(version: str) -> None:
    assert binary.refusal(version) is None


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("3.5.0", "lose committed data"),
        ("3.5.2", "lose committed data"),
        ("3.5.3", "too old"),
        ("3.5.5", "too old"),
        ("3.4.21", "too old"),
        ("3.3.27", "too old"),
        ("2.3.8", "too old"),
        ("latest", "not a version"),
        ("", "not a version"),
    ],
)
def test_refused_versions_say_why(version: str, reason: str) -> None:
    assert reason in (binary.refusal(version) or "")


def test_the_variable_comes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    fake_etcd(tmp_path / "bin", "etcd Version: 3.6.1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv(binary.VARIABLE, raising=False)
    assert binary.find_etcd() == binary.EtcdBinary(tmp_path / "bin" / "etcd", "3.6.1")
    named = fake_etcd(tmp_path, "etcd Version: 3.5.33")
    monkeypatch.setenv(binary.VARIABLE, str(named))
    assert binary.find_etcd() == binary.EtcdBinary(named, "3.5.33")


def test_no_etcd_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(binary.VARIABLE, raising=False)
    with pytest.raises(binary.EtcdMissing, match="install etcd-server"):
        binary.find_etcd()


def test_something_else_called_etcd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(binary.VARIABLE, str(fake_etcd(tmp_path, "hello")))
    with pytest.raises(binary.EtcdMissing, match="does not say its version"):
        binary.find_etcd()
    monkeypatch.setenv(binary.VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(binary.EtcdMissing):
        binary.find_etcd()
