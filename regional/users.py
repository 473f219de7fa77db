"""Hashes of the user tokens, as the global plane last sent them: in memory, and in a file for when it is away.

The set is always whole, never merged: a token that is no longer in it is no longer good here. A file that cannot be
read counts as no users, which locks people out and nothing else.
"""

import os
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from atoll.api.v1 import objects_pb2, regional_pb2

_log = structlog.get_logger()


class Users:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._tokens: dict[str, objects_pb2.UserToken] = {}
        try:
            self._take(regional_pb2.TokenSet.FromString(file.read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, DecodeError) as error:
            _log.warning("the stored user tokens cannot be read", file=str(file), error=str(error))

    def find(self, token_id: str) -> objects_pb2.UserToken | None:
        return self._tokens.get(token_id)

    def replace(self, tokens: regional_pb2.TokenSet) -> None:
        """Memory first: a full disk must not keep a revoked token alive."""
        self._take(tokens)
        fresh = self._file.with_suffix(".new")
        try:
            descriptor = os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as target:
                target.write(tokens.SerializeToString(deterministic=True))
                target.flush()
                os.fsync(target.fileno())
            fresh.replace(self._file)
        except OSError as error:
            _log.warning("the user tokens cannot be stored", file=str(self._file), error=str(error))

    def _take(self, tokens: regional_pb2.TokenSet) -> None:
        self._tokens = {token.id: token for token in tokens.tokens}
