"""The regional scheduler's process, `atoll-region --config region.toml`: wires concrete things, nothing else."""

import asyncio
import contextlib

from atoll import rpc, service
from atoll.api.v1 import agent_pb2_grpc, regional_pb2_grpc
from atoll.clock import SystemClock
from atoll.identity import TlsFiles, tls_to_etcd
from atoll.service import Stop
from atoll.store.reach import reach
from regional.config import Settings
from regional.loop import Region


def main() -> None:
    settings = service.settings("atoll-region", Settings, "ATOLL_REGION_")

    async def serve(stop: Stop) -> None:
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        clock = SystemClock()
        store = await reach(settings.etcd, tls=tls_to_etcd(*settings.etcd_tls), stopped=stop.wait)
        if store is None:
            return
        region = Region(settings, store, clock)
        server = rpc.Server(
            TlsFiles(settings.certificate, settings.key, settings.ca), region.users.find, clock, rpc.limits(settings)
        )
        server.add(agent_pb2_grpc.add_AgentGatewayServicer_to_server, region.dispatcher)
        server.add(regional_pb2_grpc.add_RegionalServicer_to_server, region.api)
        try:
            await server.start(settings.people, settings.programs)
            programs = settings.advertise or server.programs_address
            people = settings.advertise_people or server.people_address
            running = asyncio.create_task(region.run(programs, people))
            stop.ready(people=server.people_address, programs=server.programs_address)
            await asyncio.wait({running, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        finally:
            await server.stop(settings.stop_grace_s)
            await store.close()

    service.run(serve, program="atoll-region", metrics=settings.metrics, log_level=settings.log_level)


if __name__ == "__main__":
    main()
