"""Settings that both servers have: limits on callers, TLS to etcd."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

import global_cp.config
import regional.config
from atoll import rpc
from atoll.config import load
from atoll.errors import Invalid
from atoll.identity import TlsFiles, tls_to_etcd

SERVERS = (regional.config.Settings, global_cp.config.Settings)
NEEDED = {
    **dict.fromkeys(("certificate", "key", "ca", "issuer_certificate", "issuer_key", "state_dir"), "x"),
    "region": "r",
    "name": "n",
    "etcd": "127.0.0.1:2379",
}


def settings(cls: type[Any], **given: str) -> Any:
    known = {field.name for field in fields(cls)}
    values = {name: text for name, text in NEEDED.items() if name in known} | given
    return load(cls, None, "T_", {f"T_{name.upper()}": text for name, text in values.items()})


@pytest.mark.parametrize("cls", SERVERS)
def test_limits_are_settings_with_the_same_defaults(cls: type[Any]) -> None:
    assert rpc.limits(settings(cls)) == rpc.Limits()
    assert rpc.limits(settings(cls, rpc_calls_per_s="5", rpc_message_bytes="100")) == rpc.Limits(
        calls_per_s=5, message_bytes=100
    )
    assert all(limit.default is not MISSING for limit in fields(rpc.Limits))


@pytest.mark.parametrize("cls", SERVERS)
def test_the_three_files_for_tls_to_etcd_belong_together(cls: type[Any]) -> None:
    assert tls_to_etcd(*settings(cls).etcd_tls) is None
    files = {"etcd_ca": "ca.crt", "etcd_certificate": "a.crt", "etcd_key": "a.key"}
    assert tls_to_etcd(*settings(cls, **files).etcd_tls) == TlsFiles(Path("a.crt"), Path("a.key"), Path("ca.crt"))
    del files["etcd_key"]
    with pytest.raises(Invalid) as caught:
        settings(cls, **files)
    assert "belong together" in caught.value.mistakes[0].message
