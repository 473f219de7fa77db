"""atoll-agent --config FILE: wires the agent together, nothing else."""

import asyncio

from agent.checkpoint import Checkpoint
from agent.config import Settings
from agent.enrol import Enrolment
from agent.loop import Agent
from atoll import service
from atoll.clock import SystemClock


def main() -> None:
    settings = service.settings("atoll-agent", Settings, "ATOLL_AGENT_")

    async def serve(stop: service.Stop) -> None:
        clock = SystemClock()
        checkpoint = Checkpoint(settings.state_dir)
        agent = Agent(settings, checkpoint, Enrolment(settings, clock), clock)
        asked, life = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(agent.run(stop.ready))
        await asyncio.wait({asked, life}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if life.done():
            life.result()
        life.cancel()
        await asyncio.wait({life})
        checkpoint.close()

    service.run(serve, program="agent", metrics=settings.metrics)


if __name__ == "__main__":
    main()
