"""User tokens: what is wrong with one that is asked for, the record of a good one, and the end of one.

The secret was made by the API and is never seen here. Leaves to authorization.py which roles belong to a tenant, and to
regions.py that every region hears of each change.
"""

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Mistake
from atoll.model.names import mistake_in_name

TOKEN_S = 30 * 86_400  # when nothing is said
LONGEST_TOKEN_S = 365 * 86_400


def mistakes(request: global_pb2.CreateUserTokenRequest) -> list[Mistake]:
    """But for its tenant."""
    found = []
    if mistake := mistake_in_name(request.name):
        found.append(Mistake("name", mistake))
    if request.role not in objects_pb2.Role.values():
        found.append(Mistake("role", f"{request.role} is no role"))
    ttl_s = request.ttl_s or TOKEN_S
    if not 1 <= ttl_s <= LONGEST_TOKEN_S:
        found.append(Mistake("ttl", f"{ttl_s}s is not allowed: 1s to {LONGEST_TOKEN_S}s"))
    return found


def record(
    request: global_pb2.CreateUserTokenRequest, token: objects_pb2.UserToken, now_ms: int
) -> objects_pb2.UserToken:
    return objects_pb2.UserToken(
        id=token.id,
        hash=token.hash,
        name=request.name,
        role=request.role,
        tenant=request.tenant,
        expires_ms=now_ms + (request.ttl_s or TOKEN_S) * 1000,
    )


def shown(token: objects_pb2.UserToken) -> objects_pb2.UserToken:
    """Without its hash."""
    copy = objects_pb2.UserToken()
    copy.CopyFrom(token)
    copy.ClearField("hash")
    return copy
