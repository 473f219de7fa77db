"""Who the people are: the stored hashes of user tokens, on the leader and on a standby.

The leader's records come first, so that a token works as soon as it was made; a standby, which must know its callers to
tell them where the leader is, has a mirror of the store.
"""

from atoll.api.v1.objects_pb2 import UserToken
from atoll.store import keys
from atoll.store.mirror import Mirror
from atoll.store.store import Store
from global_cp.seat import Seat


class Users:
    def __init__(self, seat: Seat, store: Store) -> None:
        self._seat = seat
        self._mirror = Mirror(store, keys.user_token(""))

    async def run(self) -> None:
        """Until cancelled."""
        await self._mirror.run()

    def find(self, token_id: str) -> UserToken | None:
        """For `rpc.Server(users=...)`."""
        if reign := self._seat.reign:
            return reign.records.tokens.get(token_id)
        item = self._mirror.items.get(keys.user_token(token_id))
        return UserToken.FromString(item.value) if item else None
