"""The authorization table against the proto descriptors: complete, and exactly as wide as meant."""

import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from atoll.api.v1 import agent_pb2, global_pb2, objects_pb2, regional_pb2
from atoll.api.v1.objects_pb2 import (
    ROLE_ADMIN,
    ROLE_GLOBAL,
    ROLE_NODE,
    ROLE_OPERATOR,
    ROLE_REGION,
    ROLE_UNSPECIFIED,
    ROLE_USER,
    ROLE_VIEWER,
    Role,
)
from atoll.authorization import RULES, Rule, Scope, authorize, mistake_in_grant
from atoll.errors import NotAllowed, NotAuthenticated
from atoll.identity import Identity

FILES = (objects_pb2, global_pb2, regional_pb2, agent_pb2)
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
EAST = Identity(ROLE_REGION, "r1", region="east")
ROLES = [Role.Value(name) for name in Role.keys()]  # noqa: SIM118 - an enum wrapper, not a dict

# The same decision as RULES, written the other way round: what each role may call, and where its reach ends.
TENANT_READS = {
    "GetWorkload", "ListWorkloads", "WatchWorkloads", "GetTenant", "ListSlots", "Why", "ListEvents", "Logs",
    "ListQueue", "ListGlobalEvents",
}  # fmt: skip
TENANT_WRITES = {"ApplyWorkload", "ScaleWorkload", "DeleteWorkload", "ResumeJob"}
OPEN_READS = {"ListRegions", "GetPolicy", "ListPolicies", "WhoAmI"}
CLUSTER_READS = {"ListTenants", "ListNodes", "ListJoinTokens"}
OPERATIONS = {"CreateJoinToken", "RevokeJoinToken", "UpdateNode", "RemoveNode", "UpdateRegion"}
NODE_CALLS = {"AgentGateway/Renew", "AgentGateway/Session"}
MAY: dict[Role.ValueType, set[str]] = {
    ROLE_VIEWER: TENANT_READS | OPEN_READS,
    ROLE_USER: TENANT_READS | OPEN_READS | TENANT_WRITES,
    ROLE_OPERATOR: TENANT_READS | OPEN_READS | CLUSTER_READS | OPERATIONS,
    ROLE_ADMIN: TENANT_READS
    | OPEN_READS
    | TENANT_WRITES
    | CLUSTER_READS
    | OPERATIONS
    | {"ApplyTenant", "DeleteTenant", "CreateUserToken", "ListUserTokens", "RevokeUserToken"}
    | {"ApplyPolicy", "PromotePolicy", "RollBackPolicy"},
    ROLE_NODE: NODE_CALLS,
    ROLE_REGION: {"Uplink/Session"},
    ROLE_GLOBAL: set(),
    ROLE_UNSPECIFIED: set(),
}


def _named(method: str, names: set[str]) -> bool:
    return method.rpartition("/")[2] in names or method.rpartition(".")[2] in names


def _request(method: str, tenant: str) -> Message | None:
    descriptor = METHODS[method]
    if descriptor.client_streaming:
        return None
    request = GetMessageClass(descriptor.input_type)()
    rule = RULES[method]
    if rule.tenant:
        *path, last = rule.tenant.split(".")
        owner = request
        for name in path:
            owner = getattr(owner, name)
        setattr(owner, last, tenant)
    return request


def _caller(role: Role.ValueType, *, own: bool) -> Identity:
    tenant = "blue" if role in (ROLE_VIEWER, ROLE_USER) else ""
    region = "east" if own else "west"
    return Identity(role, "x", tenant, region if role in (ROLE_NODE, ROLE_REGION) else "")


MATRIX = [(method, role, own) for method in METHODS for role in ROLES for own in (True, False)]


def test_every_rpc_has_a_rule_and_every_rule_an_rpc() -> None:
    assert METHODS.keys() == RULES.keys()


@pytest.mark.parametrize(("method", "rule"), RULES.items())
def test_the_tenant_is_a_string_of_the_request(method: str, rule: Rule) -> None:
    assert bool(rule.tenant) == (rule.scope is Scope.OWN_TENANT)
    if not rule.tenant:
        return
    assert not METHODS[method].client_streaming, "a stream has no request to look into"
    descriptor = METHODS[method].input_type
    *path, last = rule.tenant.split(".")
    for name in path:
        inner = descriptor.fields_by_name[name].message_type
        assert inner is not None
        descriptor = inner
    field = descriptor.fields_by_name[last]
    assert field.type == FieldDescriptor.TYPE_STRING
    assert not field.is_repeated


@pytest.mark.parametrize("method", METHODS)
def test_a_request_with_a_tenant_is_held_to_it(method: str) -> None:
    """A rule that forgot the tenant of its request would let one tenant act for another."""
    descriptor = METHODS[method].input_type
    if "tenant" in descriptor.fields_by_name and RULES[method].roles & {ROLE_VIEWER, ROLE_USER}:
        assert RULES[method].scope is Scope.OWN_TENANT


@pytest.mark.parametrize(("method", "role", "own"), MATRIX)
def test_the_matrix(method: str, role: Role.ValueType, own: bool) -> None:
    request = _request(method, "blue" if own else "red")
    allowed = _named(method, MAY[role])
    if role in (ROLE_VIEWER, ROLE_USER) and RULES[method].scope is Scope.OWN_TENANT:
        allowed = allowed and own
    if role == ROLE_NODE:
        allowed = allowed and own
    if _named(method, {"Join"}):
        allowed = True
    if allowed:
        authorize(_caller(role, own=own), method, request, EAST)
    else:
        with pytest.raises(NotAllowed):
            authorize(_caller(role, own=own), method, request, EAST)


@pytest.mark.parametrize("method", METHODS)
def test_nobody_may_join_and_no_more(method: str) -> None:
    if _named(method, {"Join"}):
        authorize(None, method, _request(method, "blue"), EAST)
    else:
        with pytest.raises(NotAuthenticated):
            authorize(None, method, _request(method, "blue"), EAST)


def test_an_unknown_method_is_refused_even_to_admins() -> None:
    with pytest.raises(NotAllowed):
        authorize(Identity(ROLE_ADMIN, "root"), "/atoll.api.v1.Global/Unknown", None, EAST)


@pytest.mark.parametrize("method", [method for method, rule in RULES.items() if rule.tenant])
def test_no_tenant_named_becomes_the_callers(method: str) -> None:
    role = ROLE_USER
    request = _request(method, "")
    authorize(Identity(role, "ann", "blue"), method, request, EAST)
    assert request == _request(method, "blue")
    untouched = _request(method, "")
    if ROLE_ADMIN in RULES[method].roles:
        authorize(Identity(ROLE_ADMIN, "root"), method, untouched, EAST)
        assert untouched == _request(method, "")


@pytest.mark.parametrize(
    ("role", "tenant", "fine"),
    [
        (ROLE_VIEWER, "blue", True),
        (ROLE_USER, "blue", True),
        (ROLE_OPERATOR, "", True),
        (ROLE_ADMIN, "", True),
        (ROLE_VIEWER, "", False),
        (ROLE_USER, "", False),
        (ROLE_OPERATOR, "blue", False),
        (ROLE_ADMIN, "blue", False),
        (ROLE_NODE, "", False),
        (ROLE_REGION, "", False),
        (ROLE_GLOBAL, "", False),
        (ROLE_UNSPECIFIED, "", False),
        (99, "", False),
    ],
)
def test_what_a_token_may_grant(role: Role.ValueType, tenant: str, fine: bool) -> None:
    assert (mistake_in_grant(role, tenant) is None) == fine
    if role in (ROLE_USER, ROLE_ADMIN) and not fine:
        with pytest.raises(NotAllowed):
            authorize(Identity(role, "x", tenant), "/atoll.api.v1.Global/WhoAmI", global_pb2.WhoAmIRequest(), EAST)
