"""Events for people about a workload: the one form they have. When there is one is decided by who announces it."""

from atoll.api.v1 import objects_pb2
from regional.core.commands import Announce
from regional.core.state import State, Turn


def announce(turn: Turn, state: State, tenant: str, workload: str, kind: str, message: str) -> None:
    turn.do(
        Announce(
            objects_pb2.Event(
                at_ms=turn.now_ms,
                type=kind,
                object=f"workload/{tenant}/{workload}",
                message=message,
                region=state.region,
                tenant=tenant,
            )
        )
    )
