"""Ends of jobs are told to a web server by a real global plane on real etcd, also after it was killed."""

import json
from pathlib import Path

import grpc
import grpc.aio
import pytest

from atoll.api.v1 import global_pb2 as pb
from atoll.api.v1 import objects_pb2
from atoll.clock import SystemClock
from atoll.model.resources import Vector
from atoll.rpc import error_of
from atoll.store.etcd import EtcdStore
from tests.support.audit import assert_clean
from tests.support.etcd import EtcdCluster
from tests.support.global_core import tenant, workload
from tests.support.global_process import Client, GlobalProcess, until
from tests.support.pki import Pki
from tests.support.receiver import Receiver

pytestmark = pytest.mark.etcd
UNIT = Vector(100, 64)
SOON_MS = 1_000


def _job(name: str, url: str, not_after_ms: int = 0) -> pb.ApplyWorkloadRequest:
    """No region is there to run it: it ends by its window, or when it is deleted."""
    wish = objects_pb2.Notification(url=url)
    job = workload(name, 1, UNIT, type=objects_pb2.WORKLOAD_TYPE_JOB, notify=[wish], not_after_ms=not_after_ms)
    return pb.ApplyWorkloadRequest(workload=job, request_id=f"apply-{name}")


async def test_an_end_is_told_at_least_once_whatever_fails(tmp_path: Path, etcd: EtcdCluster) -> None:
    async with Receiver(b"HTTP/1.1 503 Busy\r\n\r\n") as receiver:
        base = f"http://127.0.0.1:{receiver.port}/hooks/"
        process = GlobalProcess(tmp_path, Pki(tmp_path / "pki"), etcd.endpoints, webhooks=[base])
        await process.start()
        async with Client(process) as admin:
            await until(lambda: admin.api.ApplyTenant(pb.ApplyTenantRequest(tenant=tenant(), request_id="t-1")))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await admin.api.ApplyWorkload(_job("evil", "http://169.254.169.254/latest/"))
            (mistake,) = error_of(refused.value).mistakes
            assert mistake.path == "spec.notify[0].url" and "webhooks" in mistake.message

            soon_ms = SystemClock().now_ms() + SOON_MS
            await admin.api.ApplyWorkload(_job("late", f"{base}late", not_after_ms=soon_ms))
            await until(lambda: len(receiver.posted) == 2)
            assert len({posted.headers["webhook-id"] for posted in receiver.posted}) == 1, "one end, one id"
            told = json.loads(receiver.posted[1].body)
            assert told["type"] == "job.failed" and told["data"]["reason"] == "WindowOver"
            await admin.api.ApplyWorkload(_job("gone", f"{base}gone"))
    async with Client(process) as admin:  # nobody listens while it ends, and while its leader dies
        await admin.api.DeleteWorkload(pb.DeleteWorkloadRequest(tenant="acme", name="gone", request_id="d-1"))
        await process.kill()
        await process.start()
        async with Receiver(port=receiver.port) as again:
            await until(lambda: bool(again.posted))
            (posted,) = again.posted
            assert posted.target == "/hooks/gone" and json.loads(posted.body)["type"] == "job.stopped"
            store = await EtcdStore.connect(etcd.endpoints)

            async def none_is_left() -> bool:
                return not (await store.range(b"/g/notice/", b"/g/notice0")).items

            await until(none_is_left)
    assert await process.stop() == 0, process.log()
    await assert_clean(store)
    await store.close()
