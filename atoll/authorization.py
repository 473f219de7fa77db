"""Who may call what: one table over every RPC of every service, deny by default.

A call is allowed when its method is in `RULES`, the caller's role is in the rule, and the rule's scope holds. Users
and viewers belong to one tenant; operators and admins to none, so a tenant never limits them. What a stream says after
it is open (the node in Hello, the region in RegionHello) is held against the identity by whoever reads the stream, and
objects of other tenants are answered as "not found" by the servicers.
"""

from dataclasses import dataclass
from enum import Enum

from google.protobuf.message import Message

from atoll.api.v1.objects_pb2 import (
    ROLE_ADMIN,
    ROLE_NODE,
    ROLE_OPERATOR,
    ROLE_REGION,
    ROLE_USER,
    ROLE_VIEWER,
    Role,
)
from atoll.errors import NotAllowed, NotAuthenticated
from atoll.identity import Identity


class Scope(Enum):
    ANONYMOUS = "anybody, even without a name"
    ANY = "any object"
    OWN_TENANT = "the caller's tenant; any tenant for operators and admins"
    OWN_REGION = "the region that serves the call is the caller's"


@dataclass(frozen=True, slots=True)
class Rule:
    """`tenant` is the request's field that names the tenant, as a dotted path; only with OWN_TENANT."""

    roles: frozenset[Role.ValueType]
    scope: Scope
    tenant: str = ""


TENANT_ROLES = frozenset({ROLE_VIEWER, ROLE_USER})
ADMINS = frozenset({ROLE_ADMIN})
OPERATORS = frozenset({ROLE_OPERATOR, ROLE_ADMIN})
WRITERS = frozenset({ROLE_USER, ROLE_ADMIN})
READERS = TENANT_ROLES | OPERATORS
REGIONS = frozenset({ROLE_REGION})
NODES = frozenset({ROLE_NODE})
NOBODY: frozenset[Role.ValueType] = frozenset()

_GLOBAL = "/atoll.api.v1.Global/"
_REGIONAL = "/atoll.api.v1.Regional/"
_UPLINK = "/atoll.api.v1.Uplink/"
_GATEWAY = "/atoll.api.v1.AgentGateway/"

RULES: dict[str, Rule] = {
    _GLOBAL + "ApplyWorkload": Rule(WRITERS, Scope.OWN_TENANT, "workload.metadata.tenant"),
    _GLOBAL + "GetWorkload": Rule(READERS, Scope.OWN_TENANT, "tenant"),
    _GLOBAL + "ListWorkloads": Rule(READERS, Scope.OWN_TENANT, "tenant"),
    _GLOBAL + "ScaleWorkload": Rule(WRITERS, Scope.OWN_TENANT, "tenant"),
    _GLOBAL + "DeleteWorkload": Rule(WRITERS, Scope.OWN_TENANT, "tenant"),
    _GLOBAL + "ResumeJob": Rule(WRITERS, Scope.OWN_TENANT, "tenant"),
    _GLOBAL + "WatchWorkloads": Rule(READERS, Scope.OWN_TENANT, "tenant"),
    _GLOBAL + "ApplyTenant": Rule(ADMINS, Scope.ANY),
    _GLOBAL + "GetTenant": Rule(READERS, Scope.OWN_TENANT, "name"),
    _GLOBAL + "ListTenants": Rule(OPERATORS, Scope.ANY),
    _GLOBAL + "DeleteTenant": Rule(ADMINS, Scope.ANY),
    _GLOBAL + "ListRegions": Rule(READERS, Scope.ANY),
    _GLOBAL + "UpdateRegion": Rule(OPERATORS, Scope.ANY),
    _GLOBAL + "ApplyPolicy": Rule(ADMINS, Scope.ANY),
    _GLOBAL + "GetPolicy": Rule(READERS, Scope.ANY),
    _GLOBAL + "ListPolicies": Rule(READERS, Scope.ANY),
    _GLOBAL + "PromotePolicy": Rule(ADMINS, Scope.ANY),
    _GLOBAL + "RollBackPolicy": Rule(ADMINS, Scope.ANY),
    _GLOBAL + "ListGlobalEvents": Rule(READERS, Scope.OWN_TENANT, "tenant"),
    _GLOBAL + "CreateUserToken": Rule(ADMINS, Scope.ANY),
    _GLOBAL + "ListUserTokens": Rule(ADMINS, Scope.ANY),
    _GLOBAL + "RevokeUserToken": Rule(ADMINS, Scope.ANY),
    _GLOBAL + "WhoAmI": Rule(READERS, Scope.ANY),
    _REGIONAL + "ListNodes": Rule(OPERATORS, Scope.ANY),
    _REGIONAL + "ListSlots": Rule(READERS, Scope.OWN_TENANT, "tenant"),
    _REGIONAL + "Why": Rule(READERS, Scope.OWN_TENANT, "tenant"),
    _REGIONAL + "ListQueue": Rule(READERS, Scope.OWN_TENANT, "tenant"),
    _REGIONAL + "ListEvents": Rule(READERS, Scope.OWN_TENANT, "tenant"),
    _REGIONAL + "Logs": Rule(READERS, Scope.OWN_TENANT, "tenant"),
    _REGIONAL + "CreateJoinToken": Rule(OPERATORS, Scope.ANY),
    _REGIONAL + "ListJoinTokens": Rule(OPERATORS, Scope.ANY),
    _REGIONAL + "RevokeJoinToken": Rule(OPERATORS, Scope.ANY),
    _REGIONAL + "UpdateNode": Rule(OPERATORS, Scope.ANY),
    _REGIONAL + "RemoveNode": Rule(OPERATORS, Scope.ANY),
    _UPLINK + "Session": Rule(REGIONS, Scope.ANY),
    _GATEWAY + "Join": Rule(NOBODY, Scope.ANONYMOUS),
    _GATEWAY + "Renew": Rule(NODES, Scope.OWN_REGION),
    _GATEWAY + "Session": Rule(NODES, Scope.OWN_REGION),
}


def authorize(identity: Identity | None, method: str, request: Message | None, served_by: Identity) -> None:
    """Raises NotAllowed or NotAuthenticated unless `identity` (None = nobody) may call `method` at `served_by`.

    `request` is None for a stream. A caller with a tenant who names none means its own: the request, fresh from the
    wire and seen by nobody yet, is completed here, so that behind this border it always names a tenant.
    """
    rule = RULES.get(method)
    if rule is None:
        raise NotAllowed(f"no rule allows {method}")
    if rule.scope is Scope.ANONYMOUS:
        return
    if identity is None:
        raise NotAuthenticated("this call needs a token or a client certificate")
    if identity.role not in rule.roles:
        takes = " or ".join(_word(role) for role in sorted(rule.roles))
        raise NotAllowed(f"{_shown(identity)} may not call {method.rpartition('/')[2]}: that takes the role {takes}")
    if (identity.role in TENANT_ROLES) != bool(identity.tenant):
        raise NotAllowed(f"{_shown(identity)} must {'have' if identity.role in TENANT_ROLES else 'not have'} a tenant")
    if rule.scope is Scope.OWN_REGION and identity.region != served_by.region:
        raise NotAllowed(f"{_shown(identity)} is of region {identity.region!r}, not of {served_by.region!r}")
    if rule.scope is Scope.OWN_TENANT and identity.role in TENANT_ROLES:
        _hold_to_tenant(identity, rule, request)


def mistake_in_grant(role: Role.ValueType, tenant: str) -> str | None:
    """What is wrong with a user token of this role and tenant, or None."""
    if role not in READERS:
        return "is not one of viewer, user, operator and admin"
    if (role in TENANT_ROLES) != bool(tenant):
        return "needs a tenant" if role in TENANT_ROLES else "is not bound to a tenant"
    return None


def _hold_to_tenant(identity: Identity, rule: Rule, request: Message | None) -> None:
    *path, last = rule.tenant.split(".")
    owner = request
    for name in path:
        owner = getattr(owner, name)
    named = getattr(owner, last)
    if not named:
        setattr(owner, last, identity.tenant)
    elif named != identity.tenant:
        raise NotAllowed(f"{_shown(identity)} may not act for tenant {named[:63]!r}")


def _shown(identity: Identity) -> str:
    return f"{_word(identity.role)} {identity.name!r}"


def _word(role: Role.ValueType) -> str:
    return Role.Name(role).removeprefix("ROLE_").lower()
