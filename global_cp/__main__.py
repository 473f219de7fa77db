"""The global plane's process: `atoll-global --config global.toml`. Wires concrete things together, nothing else."""

import asyncio
import contextlib

from atoll import rpc, service
from atoll.api.v1 import global_pb2_grpc, regional_pb2_grpc
from atoll.clock import SystemClock
from atoll.identity import TlsFiles, identity_from_certificate, tls_to_etcd
from atoll.service import Stop
from atoll.store.reach import reach
from global_cp.config import Settings
from global_cp.loop import GlobalPlane


def main() -> None:
    settings = service.settings("atoll-global", Settings, "ATOLL_GLOBAL_")

    async def serve(stop: Stop) -> None:
        clock = SystemClock()
        tls = TlsFiles(settings.certificate, settings.key, settings.ca)
        store = await reach(settings.etcd, tls=tls_to_etcd(*settings.etcd_tls), stopped=stop.wait)
        if store is None:
            return
        cluster = identity_from_certificate(settings.certificate.read_bytes()).cluster
        plane = GlobalPlane(settings, store, clock, cluster)
        server = rpc.Server(tls, plane.users.find, clock, rpc.limits(settings))
        server.add(global_pb2_grpc.add_GlobalServicer_to_server, plane.api)
        server.add(regional_pb2_grpc.add_RegionalServicer_to_server, plane.proxy)
        server.add(regional_pb2_grpc.add_UplinkServicer_to_server, plane.link)
        try:
            await server.start(settings.people, settings.programs)
            programs = settings.advertise or server.programs_address
            people = settings.advertise_people or server.people_address
            running = asyncio.create_task(plane.run(programs, people))
            stop.ready(people=server.people_address, programs=server.programs_address)
            await asyncio.wait({running, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        finally:
            await server.stop(settings.stop_grace_s)
            await store.close()

    service.run(serve, program="atoll-global", metrics=settings.metrics, log_level=settings.log_level)


if __name__ == "__main__":
    main()
