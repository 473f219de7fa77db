"""Settings of a region on free ports, with the credentials of a test cluster; and a leader that only writes."""

import asyncio
from pathlib import Path
from typing import Any

from atoll.clock import Clock
from atoll.election import Election, LaneWriter
from atoll.lane import Committed
from atoll.store import keys
from atoll.store.store import Store
from regional.config import Settings
from regional.core.commands import Reply
from regional.core.events import WriteAsked
from regional.writes import GuardedWrites
from tests.support.pki import Pki

REGION = "r1"


def settings(pki: Pki, state_dir: Path, **changes: Any) -> Settings:
    tls, issuer = pki.region(REGION), pki.issuer(REGION)
    values: dict[str, Any] = {
        "region": REGION,
        "name": "a",
        "etcd": ("127.0.0.1:1",),
        "people": "127.0.0.1:0",
        "programs": "127.0.0.1:0",
        "metrics": "",
        "certificate": tls.certificate,
        "key": tls.key,
        "ca": tls.ca,
        "issuer_certificate": issuer.certificate,
        "issuer_key": issuer.key,
        "state_dir": state_dir,
        "headroom_percent": 0,
    }
    return Settings(**{**values, **changes})


def to_toml(values: Settings, **changes: Any) -> str:
    """The file from which the same settings are read. Lists and numbers of TOML are those of Python."""
    shown = {name: getattr(values, name) for name in Settings.__dataclass_fields__} | changes
    lines = []
    for name, value in shown.items():
        if value is None:  # TOML has no word for it: left out
            continue
        text = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        lines.append(f"{name} = {text!r}".replace("'", '"'))
    return "\n".join(lines) + "\n"


class WritingLeader:
    """Commits each WriteAsked on lane 0 under a won election, as the core would, one after the other."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._asked: asyncio.Queue[WriteAsked] = asyncio.Queue()
        self.writes = GuardedWrites(self._asked.put_nowait, deadline_ms=5_000)

    async def run(self) -> None:
        root = keys.region_root(REGION)
        authority, _ = await Election(self._store, root, name="a", address="x:1", clock=self._clock).campaign()
        writer = LaneWriter(self._store, authority, {})
        while True:
            asked = await self._asked.get()
            match await writer.commit(0, asked.plan):
                case Committed(revision=revision):
                    self.writes.settle(Reply(asked.reply_to, revision))
                case refused:
                    self.writes.settle(Reply(asked.reply_to, 0, refused.message))
