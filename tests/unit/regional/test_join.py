"""Joining, over the memory store and a leader that commits for real."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll import tokens
from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.api.v1.objects_pb2 import ROLE_NODE, Label
from atoll.clock import SystemClock
from atoll.errors import AtollError, Busy, Conflict, Invalid, NotAllowed, NotAuthenticated, NotFound
from atoll.identity import Identity, RegionIssuer, identity_from_certificate, node_request
from atoll.store import keys
from atoll.store.memory import MemoryStore
from atoll.store.store import Put, Txn
from regional.join import LONGEST_TTL_S, Enrolment
from tests.support.pki import Pki
from tests.support.region import REGION, WritingLeader, settings

PEER = "ipv4:10.0.0.1:4711"


class MovedClock(SystemClock):
    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


class Joining:
    def __init__(self, pki: Pki, folder: Path, region: str = REGION) -> None:
        self.clock = MovedClock()
        self.store = MemoryStore()
        self.leader = WritingLeader(self.store, SystemClock())
        issuer = RegionIssuer(pki.issuer(REGION).certificate, pki.issuer(REGION).key)
        self.enrolment = Enrolment(
            settings(pki, folder, join_attempts_per_s=5),
            issuer,
            pki.ca.read_bytes(),
            self.store,
            self.leader.writes,
            self.clock,
        )

    async def token(self, **fields: object) -> str:
        request = regional_pb2.CreateJoinTokenRequest(region=REGION, **fields)  # type: ignore[arg-type]
        return (await self.enrolment.create(request)).token

    async def join(self, token: str, node: str = "n1", csr: bytes = b"") -> agent_pb2.JoinResponse:
        request = agent_pb2.JoinRequest(token=token, node=node, csr_pem=csr or node_request()[1])
        return await self.enrolment.join(request, PEER)

    def stored(self) -> list[objects_pb2.JoinToken]:
        prefix = keys.join_token(keys.region_root(REGION), "")
        items = self.store.state.range(prefix, prefix + b"\xff").items
        return [objects_pb2.JoinToken.FromString(item.value) for item in items]


@pytest.fixture
async def joining(pki: Pki, tmp_path: Path) -> AsyncIterator[Joining]:
    made = Joining(pki, tmp_path)
    task = asyncio.create_task(made.leader.run())
    yield made
    task.cancel()


async def test_a_token_is_traded_for_a_certificate_with_its_pool_and_labels(joining: Joining) -> None:
    token = await joining.token(pool="gpu", labels=[Label(key="zone", value="a")])
    response = await joining.join(token)
    identity = identity_from_certificate(response.certificate_pem)
    assert (identity.role, identity.region, identity.node) == (ROLE_NODE, REGION, "n1")
    assert (identity.pool, identity.labels) == ("gpu", (("zone", "a"),))
    assert response.region == REGION


async def test_only_the_hash_is_stored(joining: Joining) -> None:
    token = await joining.token()
    (record,) = joining.stored()
    assert token.rpartition(".")[2].encode() not in record.SerializeToString()
    assert len(record.hash) == 32


async def test_a_token_is_spent_once(joining: Joining) -> None:
    token = await joining.token()
    await joining.join(token)
    (record,) = joining.stored()
    assert record.used_ms
    assert record.used_by.startswith("n1 ")
    with pytest.raises(NotAuthenticated, match="has been used"):
        await joining.join(token)


async def test_two_at_once_only_one_joins(joining: Joining) -> None:
    token = await joining.token()
    results = await asyncio.gather(*(joining.join(token, f"n{i}") for i in range(4)), return_exceptions=True)
    assert sum(isinstance(r, agent_pb2.JoinResponse) for r in results) == 1
    assert all(isinstance(r, agent_pb2.JoinResponse | Conflict | NotAuthenticated) for r in results)


async def test_the_same_node_with_the_same_key_gets_its_lost_answer_again(joining: Joining) -> None:
    token, (_, csr) = await joining.token(), node_request()
    first, second = await joining.join(token, csr=csr), await joining.join(token, csr=csr)
    assert (
        identity_from_certificate(first.certificate_pem).node == identity_from_certificate(second.certificate_pem).node
    )
    with pytest.raises(NotAuthenticated):
        await joining.join(token, "n2", csr)


async def test_a_bad_certificate_request_does_not_spend_the_token(joining: Joining) -> None:
    token = await joining.token()
    with pytest.raises(Invalid):
        await joining.join(token, csr=b"no csr")
    await joining.join(token)


async def test_a_token_for_one_node_is_no_good_for_another(joining: Joining) -> None:
    token = await joining.token(node="n1")
    with pytest.raises(NotAuthenticated, match="for node n1"):
        await joining.join(token, "n2")
    await joining.join(token, "n1")


async def test_an_expired_token_is_refused(joining: Joining) -> None:
    token = await joining.token(ttl_s=60)
    joining.clock.ahead_ms = 60_000
    with pytest.raises(NotAuthenticated, match="expired"):
        await joining.join(token)


@pytest.mark.parametrize("spoil", [lambda t: "", lambda t: t[:-1] + "!", lambda t: "atoll-join." + "0" * 64 + t[75:]])
async def test_what_is_no_token_of_this_cluster_is_refused(joining: Joining, spoil: object) -> None:
    token = await joining.token()
    with pytest.raises(NotAuthenticated, match="no join token"):
        await joining.join(spoil(token))  # type: ignore[operator]


async def test_a_wrong_secret_and_an_unknown_id_look_alike(joining: Joining) -> None:
    token = await joining.token()
    head, _, secret = token.rpartition(".")
    wrong = f"{head}.{'A' * len(secret)}"
    unknown = token.replace(head.rpartition(".")[2], "0" * 16)
    said = []
    for text in (wrong, unknown):
        with pytest.raises(NotAuthenticated) as refused:
            await joining.join(text)
        said.append(refused.value.message)
    assert said[0] == said[1]


async def test_a_host_that_asks_too_often_is_throttled_alone(joining: Joining) -> None:
    async def attempt(peer: str) -> AtollError:
        with pytest.raises(AtollError) as refused:
            await joining.enrolment.join(agent_pb2.JoinRequest(token="x", node="n1"), peer)
        return refused.value

    errors = [await attempt(PEER) for _ in range(8)]
    assert any(isinstance(error, Busy) and error.retry_after_ms > 0 for error in errors)
    assert isinstance(await attempt("ipv4:10.0.0.2:1"), NotAuthenticated)


async def test_expired_tokens_are_swept_when_a_new_one_is_made(joining: Joining) -> None:
    await joining.token(ttl_s=60, pool="old")
    joining.clock.ahead_ms = 61_000
    await joining.token(pool="new")
    assert [record.pool for record in joining.stored()] == ["new"]


async def test_all_mistakes_in_a_request_for_a_token_are_told_at_once(joining: Joining) -> None:
    with pytest.raises(Invalid) as refused:
        await joining.token(
            pool="a/b", node="..", ttl_s=LONGEST_TTL_S + 1, labels=[Label(key="a b"), Label(key="k"), Label(key="k")]
        )
    assert [mistake.path for mistake in refused.value.mistakes] == ["pool", "node", "ttl_s", "labels[0]", "labels"]


async def test_a_node_renews_its_own_certificate_only(joining: Joining) -> None:
    identity = Identity(ROLE_NODE, "n1", region=REGION, node="n1", pool="gpu", labels=(("zone", "a"),))
    response = await joining.enrolment.renew(agent_pb2.RenewRequest(csr_pem=node_request()[1]), identity)
    renewed = identity_from_certificate(response.certificate_pem)
    assert (renewed.node, renewed.pool, renewed.labels) == ("n1", "gpu", (("zone", "a"),))


async def test_the_same_request_again_gets_the_same_token(joining: Joining) -> None:
    first = await joining.token(pool="gpu", request_id="join-1")
    assert await joining.token(pool="gpu", request_id="join-1") == first
    both = await asyncio.gather(*(joining.token(request_id="join-2") for _ in range(2)))
    assert both[0] == both[1] != first
    assert len(joining.stored()) == 2
    with pytest.raises(Conflict) as other:
        await joining.token(pool="other", request_id="join-1")
    assert (other.value.code, other.value.request_id) == ("E3003", "join-1")
    assert await joining.token(pool="gpu") != first
    await joining.join(first)
    assert await joining.token(pool="gpu", request_id="join-1") == first, "used, and the same answer"
    shown = await joining.enrolment.tokens()
    assert not any(record.hash or record.request_digest or record.salt for record in shown)


async def test_the_same_request_after_its_token_is_swept_gets_another_secret(joining: Joining) -> None:
    """Else a secret that leaked and was revoked would be good again."""
    first = await joining.token(request_id="join-1")
    (record,) = await joining.enrolment.tokens()
    await joining.enrolment.revoke(record.id)
    joining.clock.ahead_ms = 2_000 * LONGEST_TTL_S
    await joining.token(request_id="join-2")
    again = await joining.token(request_id="join-1")
    assert again != first
    with pytest.raises(NotAuthenticated, match="does not know"):
        await joining.join(first)
    await joining.join(again)


async def test_a_derived_secret_needs_the_issuers_key(joining: Joining, pki: Pki) -> None:
    other = RegionIssuer(pki.issuer("west").certificate, pki.issuer("west").key).secret()
    mine = RegionIssuer(pki.issuer(REGION).certificate, pki.issuer(REGION).key).secret()
    token = await joining.token(request_id="join-1")
    (record,) = joining.stored()
    assert tokens.derive_join("0" * 64, mine, "join-1", record.salt).secret in token
    assert tokens.derive_join("0" * 64, other, "join-1", record.salt).secret not in token


async def test_a_revoked_token_lets_nobody_join(joining: Joining) -> None:
    token = await joining.token(pool="gpu")
    (record,) = await joining.enrolment.tokens()
    assert (record.pool, record.hash) == ("gpu", b"")
    assert (await joining.enrolment.revoke(record.id)).revoked_ms
    with pytest.raises(NotAuthenticated, match="revoked"):
        await joining.join(token)
    assert (await joining.enrolment.revoke(record.id)).revoked_ms, "once more is the same"
    with pytest.raises(NotFound):
        await joining.enrolment.revoke("nothing")


async def test_a_removed_node_gets_no_certificate_for_its_old_one_and_joins_again_later(joining: Joining) -> None:
    now_ms = joining.clock.now_ms()
    removed = objects_pb2.RemovedNode(name="n1", at_ms=now_ms, until_ms=now_ms + 86_400_000)
    key = keys.removed_node(keys.region_root(REGION), "n1")
    joining.store.state.transact(Txn((), (Put(key, removed.SerializeToString()),)))
    old = Identity(ROLE_NODE, "n1", region=REGION, node="n1", pool="gpu", expires_ms=removed.until_ms)
    request = agent_pb2.RenewRequest(csr_pem=node_request()[1])
    with pytest.raises(NotAllowed, match="removed"):
        await joining.enrolment.renew(request, old)
    token = await joining.token()
    with pytest.raises(Busy):
        await joining.join(token)
    joining.clock.ahead_ms = 2_000
    identity = identity_from_certificate((await joining.join(token)).certificate_pem)
    assert identity.expires_ms > removed.until_ms
    await joining.enrolment.renew(request, identity)
