"""Tokens: what a person (`atoll-user.<id>.<secret>`) or a new node (`atoll-join.<CA digest>.<id>.<secret>`) shows.

The secret is 256 random bits, or derived from a key, a salt and a request's id, so that the request asked again gets
the same answer. It is shown to who asked for it; stored is its SHA-256, which needs no slow hash at that length. A
token never prints itself: only `text()` tells. Whose token it is, and until when, is in the stored record.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

_ID = r"(?P<id>[0-9a-f]{16})"
_SECRET = r"(?P<secret>[A-Za-z0-9_-]{43})"
_USER = re.compile(rf"atoll-user\.{_ID}\.{_SECRET}")
_JOIN = re.compile(rf"atoll-join\.(?P<ca>[0-9a-f]{{64}})\.{_ID}\.{_SECRET}")


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """`ca_digest` is set in join tokens only."""

    id: str
    secret: str
    ca_digest: str = ""

    def text(self) -> str:
        """The whole token, to be handed to its owner."""
        head = f"atoll-join.{self.ca_digest}" if self.ca_digest else "atoll-user"
        return f"{head}.{self.id}.{self.secret}"

    def hash(self) -> bytes:
        """What is stored."""
        return hashlib.sha256(self.secret.encode()).digest()

    def matches(self, stored_hash: bytes) -> bool:
        """Whether this is the token that was stored; takes the same time for every wrong one."""
        return hmac.compare_digest(self.hash(), stored_hash)

    def __repr__(self) -> str:
        return f"Token({self.id}, secret not shown)"


def mint_user() -> Token:
    return Token(secrets.token_hex(8), secrets.token_urlsafe(32))


def mint_join(ca_digest: str) -> Token:
    return Token(secrets.token_hex(8), secrets.token_urlsafe(32), ca_digest)


def derive_join(ca_digest: str, key: bytes, request_id: str, salt: bytes) -> Token:
    """The one token of a request and a salt: always the same from the same key, and nothing of it is known without. Its
    id is that of the request alone."""
    id_ = hmac.new(key, b"join-token " + request_id.encode(), hashlib.sha256).digest()[:8]
    secret = hmac.new(key, b"join-secret " + salt + request_id.encode(), hashlib.sha256).digest()
    return Token(id_.hex(), base64.urlsafe_b64encode(secret).decode().rstrip("="), ca_digest)


def new_salt() -> bytes:
    return secrets.token_bytes(16)


def parse_user(text: str) -> Token | None:
    """The token that `text` is, or None: nothing but the exact form is one."""
    match = _USER.fullmatch(text)
    return Token(match["id"], match["secret"]) if match else None


def parse_join(text: str) -> Token | None:
    match = _JOIN.fullmatch(text)
    return Token(match["id"], match["secret"], match["ca"]) if match else None
