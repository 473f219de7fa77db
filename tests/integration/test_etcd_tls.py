"""A program and the auditor over an etcd that takes TLS with client certificates only."""

import asyncio
from pathlib import Path

import pytest

from atoll import errors
from atoll.cli.verify import audit_store
from tests.support.etcd import EtcdCluster, need_etcd
from tests.support.global_process import GlobalProcess
from tests.support.pki import Pki

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(60)]


async def test_the_global_plane_and_verify_speak_tls_to_etcd(tmp_path: Path) -> None:
    need_etcd()
    pki = Pki(tmp_path)
    tls = pki.global_plane()
    files = {"etcd_ca": str(tls.ca), "etcd_certificate": str(tls.certificate), "etcd_key": str(tls.key)}
    with EtcdCluster(tls=tls) as cluster:
        async with GlobalProcess(tmp_path, pki, tuple(cluster.endpoints), **files):
            async with asyncio.timeout(20):
                while not (await audit_store(tuple(cluster.endpoints), tls=tls)).checked:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        verdict = await audit_store(tuple(cluster.endpoints), tls=tls)
        assert not verdict.broken
        with pytest.raises(errors.Unavailable):
            await audit_store(tuple(cluster.endpoints))
