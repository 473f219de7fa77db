"""The store of a program that starts: waited for, however long it takes, and said on the way.

A program whose etcd does not answer, because it is down or because the settings name another place, does not end: it
says so after seconds and at intervals (log, code E5004; metric `atoll_store_awaited`), is not ready, and goes on by
itself once a member answers. What waiting cannot cure ends it: a malformed address, a refused version of etcd.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog
from prometheus_client import Gauge

from atoll.errors import Invalid, Mistake, Unavailable
from atoll.store.endpoints import ClientTls
from atoll.store.etcd import EtcdStore
from atoll.store.store import StoreError, StoreUnavailable

AWAITED = Gauge("atoll_store_awaited", "1 while this process waits for its store's first answer.")
CODE = "E5004"
ATTEMPT_S = 3.0  # between two words about it

log = structlog.get_logger()


async def reach(
    endpoints: Sequence[str], *, tls: ClientTls | None, stopped: Callable[[], Awaitable[None]]
) -> EtcdStore | None:
    """The store once a member has answered; None when the program is asked to stop before.

    Raises Invalid for addresses that are none, Unavailable for a version that is refused."""
    stopping = asyncio.ensure_future(stopped())
    looking = asyncio.ensure_future(_look(endpoints, tls))
    try:
        await asyncio.wait({stopping, looking}, return_when=asyncio.FIRST_COMPLETED)
        return looking.result() if looking.done() else None
    finally:
        AWAITED.set(0)
        stopping.cancel()
        looking.cancel()
        await asyncio.gather(stopping, looking, return_exceptions=True)


async def _look(endpoints: Sequence[str], tls: ClientTls | None) -> EtcdStore:
    began = time.monotonic()
    while True:
        try:
            store = await EtcdStore.connect(endpoints, tls=tls, deadline_s=ATTEMPT_S)
        except StoreUnavailable as error:
            AWAITED.set(1)
            log.error(
                "the store does not answer, trying again",
                code=CODE,
                reason=str(error),
                etcd=list(endpoints),
                waited_s=round(time.monotonic() - began),
                hint="is etcd up, and is `etcd` in the settings where it listens?",
            )
        except StoreError as error:
            raise Unavailable(f"cannot use the store at {', '.join(endpoints)}: {error}", code=CODE) from error
        except ValueError as error:
            raise Invalid("the settings are not valid", (Mistake("etcd", str(error)),), code="E1010") from error
        else:
            return store
