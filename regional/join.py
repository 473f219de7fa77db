"""How a node becomes a member: a join token is traded for a certificate of the region's issuer.

Invariants: only a token's hash is stored; it is bound to this region, to its pool and perhaps to one node's name; it
is spent once, by a guarded write that compares its record, before the certificate leaves. The same node asking again
with the same key, because the answer was lost, gets its certificate again. Pool and trusted labels come from the token.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from atoll import tokens
from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.clock import Clock
from atoll.errors import (
    Busy,
    Conflict,
    Invalid,
    Mistake,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from atoll.identity import Identity, NodeCertificate, RegionIssuer, ca_digests, expiry_ms
from atoll.lane import Plan
from atoll.model.costs import mistake_in_cost
from atoll.model.names import mistake_in_label_key, mistake_in_label_value, mistake_in_name, mistake_in_request_id
from atoll.store import keys
from atoll.store.store import Compare, Delete, KeyValue, Put, Store, StoreUnavailable, absent, mod_is, prefix_end
from regional.config import Settings
from regional.writes import GuardedWrites

LONGEST_TTL_S = 1_800
_SWEPT = 20  # expired tokens deleted beside a new one


class Enrolment:
    """Join, Renew and the making of join tokens. Only the leader's writes succeed; a standby need not be asked."""

    def __init__(
        self, settings: Settings, issuer: RegionIssuer, ca_pem: bytes, store: Store, writes: GuardedWrites, clock: Clock
    ) -> None:
        self._region = settings.region
        self._root = keys.region_root(settings.region)
        self._issuer = issuer
        self._secret = issuer.secret()
        self._ca_pem = ca_pem
        self._ca_digests = ca_digests(ca_pem)
        self._store = store
        self._writes = writes
        self._clock = clock
        self._throttle = _Throttle(settings.join_attempts_per_s, settings.join_throttled_hosts)

    async def create(self, request: regional_pb2.CreateJoinTokenRequest) -> regional_pb2.CreateJoinTokenResponse:
        """Asked again with the same request id, it is the same token. Raises Invalid with every mistake, Conflict,
        OutcomeUnknown, Unavailable."""
        if mistakes := _mistakes(request):
            raise Invalid("the join token cannot be made", tuple(mistakes))
        if request.request_id and (before := await self._made_before(request)):
            return before
        try:
            return await self._made(request)
        except Conflict:  # perhaps by the same request, at this very moment
            if request.request_id and (before := await self._made_before(request)):
                return before
            raise
        except OutcomeUnknown as unknown:
            unknown.request_id = request.request_id
            raise

    def _derived(self, request_id: str, salt: bytes) -> tokens.Token:
        """So it can be told again while its record is there, and is stored nowhere. When the record is gone the same
        request has another salt: no secret is ever good again."""
        return tokens.derive_join(self._ca_digests[0], self._secret, request_id, salt)

    async def _made_before(
        self, request: regional_pb2.CreateJoinTokenRequest
    ) -> regional_pb2.CreateJoinTokenResponse | None:
        """The answer to the same request; None: it is the first. Raises Conflict, Unavailable."""
        item = await self._get(keys.join_token(self._root, self._derived(request.request_id, b"").id))
        if item is None:
            return None
        record = objects_pb2.JoinToken.FromString(item.value)
        token = self._derived(request.request_id, record.salt)
        if record.request_digest != self._digest(request) or not token.matches(record.hash):
            text = "the request id was used for another join token"
            raise Conflict(text, request_id=request.request_id, code="E3003", hint="Ask with another --request-id.")
        return _created(token, record)

    async def _made(self, request: regional_pb2.CreateJoinTokenRequest) -> regional_pb2.CreateJoinTokenResponse:
        now_ms, salt = self._clock.now_ms(), tokens.new_salt() if request.request_id else b""
        token = self._derived(request.request_id, salt) if salt else tokens.mint_join(self._ca_digests[0])
        record = objects_pb2.JoinToken(
            id=token.id,
            hash=token.hash(),
            region=self._region,
            pool=request.pool,
            node=request.node,
            expires_ms=now_ms + (request.ttl_s or LONGEST_TTL_S) * 1000,
            labels=sorted(request.labels, key=lambda label: label.key),
            request_digest=self._digest(request) if request.request_id else b"",
            salt=salt,
        )
        key = keys.join_token(self._root, token.id)
        expired = await self._expired(now_ms)
        compares: list[Compare] = [absent(key), *(mod_is(item.key, item.mod_revision) for item in expired)]
        deletes = [Delete(item.key) for item in expired]
        await self._writes.write(Plan("JOIN-TOKEN", tuple(compares), (_put(key, record), *deletes)))
        return _created(token, record)

    def _digest(self, request: regional_pb2.CreateJoinTokenRequest) -> bytes:
        """Of what was asked for, whether the region was named or not."""
        asked = regional_pb2.CreateJoinTokenRequest()
        asked.CopyFrom(request)
        asked.region = self._region
        return hashlib.sha256(asked.SerializeToString(deterministic=True)).digest()

    async def join(self, request: agent_pb2.JoinRequest, peer: str) -> agent_pb2.JoinResponse:
        """Raises Busy, Invalid, NotAuthenticated; Conflict or OutcomeUnknown when the token's use was not written."""
        now_ms = self._clock.now_ms()
        self._throttle.admit(peer.rpartition(":")[0], now_ms)
        if mistake := mistake_in_name(request.node):
            raise Invalid("the node cannot join", (Mistake("node", mistake),))
        record, item = await self._proven(request, now_ms)
        labels = [(label.key, label.value) for label in record.labels]
        certificate = self._issuer.sign_node(
            request.csr_pem, node=request.node, pool=record.pool, labels=labels, now_ms=now_ms
        )
        used_by = f"{request.node} {_key_digest(request.csr_pem)}"
        await self._let_back(request.node, expiry_ms(certificate.certificate_pem))
        if record.used_ms and record.used_by != used_by:
            raise NotAuthenticated("the join token has been used", hint="Ask an operator for a new one.")
        if not record.used_ms:
            used = objects_pb2.JoinToken()
            used.CopyFrom(record)
            used.used_ms, used.used_by = now_ms, used_by
            await self._writes.write(Plan("JOIN", (mod_is(item.key, item.mod_revision),), (_put(item.key, used),)))
        return self._response(certificate)

    async def tokens(self) -> list[objects_pb2.JoinToken]:
        """Those that have not expired, without their hashes, sorted by id. Raises Unavailable."""
        now_ms = self._clock.now_ms()
        records = [objects_pb2.JoinToken.FromString(item.value) for item in await self._stored()]
        return sorted((_shown(r) for r in records if r.expires_ms > now_ms), key=lambda record: record.id)

    async def revoke(self, token_id: str) -> objects_pb2.JoinToken:
        """The record, revoked now or before. Raises NotFound, Conflict, OutcomeUnknown, Unavailable."""
        item = next((i for i in await self._stored() if i.key == keys.join_token(self._root, token_id)), None)
        if item is None:
            raise NotFound(f"region {self._region} has no join token {token_id[:63]!r}")
        record = objects_pb2.JoinToken.FromString(item.value)
        if not record.revoked_ms:
            record.revoked_ms = self._clock.now_ms()
            plan = Plan("REVOKE-JOIN", (mod_is(item.key, item.mod_revision),), (_put(item.key, record),))
            await self._writes.write(plan)
        return _shown(record)

    async def renew(self, request: agent_pb2.RenewRequest, identity: Identity) -> agent_pb2.JoinResponse:
        """A fresh certificate for the same node, pool and labels, unless the node was removed since the one shown was
        made. Raises Invalid, NotAllowed, Unavailable."""
        removed = await self._removed(identity.node)
        if removed and identity.expires_ms <= removed.until_ms:
            raise NotAllowed(f"node {identity.node} was removed", hint="Join again with a token.")
        return self._response(
            self._issuer.sign_node(
                request.csr_pem,
                node=identity.node,
                pool=identity.pool,
                labels=identity.labels,
                now_ms=self._clock.now_ms(),
            )
        )

    async def _proven(self, request: agent_pb2.JoinRequest, now_ms: int) -> tuple[objects_pb2.JoinToken, KeyValue]:
        """The stored record of the token that was shown. Whoever does not know the secret learns nothing of it."""
        token = tokens.parse_join(request.token)
        if token is None or token.ca_digest not in self._ca_digests:
            raise NotAuthenticated("this is no join token of this cluster")
        item = await self._get(keys.join_token(self._root, token.id))
        record = objects_pb2.JoinToken.FromString(item.value) if item else objects_pb2.JoinToken(hash=bytes(32))
        if not token.matches(record.hash) or item is None:
            raise NotAuthenticated(f"region {self._region} does not know this join token")
        if record.region != self._region:
            raise NotAuthenticated(f"the join token is for region {record.region}")
        if record.node and record.node != request.node:
            raise NotAuthenticated(f"the join token is for node {record.node}")
        if record.revoked_ms:
            raise NotAuthenticated("the join token was revoked", hint="Ask an operator for a new one.")
        if now_ms >= record.expires_ms:
            raise NotAuthenticated("the join token has expired", hint="Ask an operator for a new one.")
        return record, item

    async def _let_back(self, node: str, expires_ms: int) -> None:
        """A removed node may join again, with a certificate that is told from those it had. Raises Busy."""
        removed = await self._removed(node)
        if removed and expires_ms <= removed.until_ms:
            raise Busy(f"node {node} was removed just now", retry_after_ms=1_000)

    async def _removed(self, node: str) -> objects_pb2.RemovedNode | None:
        item = await self._get(keys.removed_node(self._root, node))
        return objects_pb2.RemovedNode.FromString(item.value) if item else None

    async def _get(self, key: bytes) -> KeyValue | None:
        try:
            return (await self._store.get(key))[0]
        except StoreUnavailable as error:
            raise Unavailable(f"the region's store does not answer: {error}") from error

    async def _stored(self) -> Sequence[KeyValue]:
        prefix = keys.join_token(self._root, "")
        try:
            return (await self._store.range(prefix, prefix_end(prefix))).items
        except StoreUnavailable as error:
            raise Unavailable(f"the region's store does not answer: {error}") from error

    async def _expired(self, now_ms: int) -> Sequence[KeyValue]:
        stored = await self._stored()
        return [i for i in stored if objects_pb2.JoinToken.FromString(i.value).expires_ms <= now_ms][:_SWEPT]

    def _response(self, certificate: NodeCertificate) -> agent_pb2.JoinResponse:
        return agent_pb2.JoinResponse(
            certificate_pem=certificate.certificate_pem,
            ca_pem=self._ca_pem,
            expires_ms=certificate.expires_ms,
            region=self._region,
        )


class _Throttle:
    """At most `per_s` attempts a second from one host, remembered for the `hosts` that asked last."""

    def __init__(self, per_s: int, hosts: int) -> None:
        self._per_s = per_s
        self._hosts = hosts
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()  # host → (start of its second, attempts in it)

    def admit(self, host: str, now_ms: int) -> None:
        """Raises Busy."""
        since_ms, count = self._seen.get(host, (now_ms, 0))
        if now_ms - since_ms >= 1_000:
            since_ms, count = now_ms, 0
        self._seen[host] = (since_ms, count + 1)
        self._seen.move_to_end(host)
        if len(self._seen) > self._hosts:
            self._seen.popitem(last=False)
        if count >= self._per_s:
            raise Busy("too many attempts to join from this host", retry_after_ms=1_000 - (now_ms - since_ms))


def _mistakes(request: regional_pb2.CreateJoinTokenRequest) -> list[Mistake]:
    found = []
    if request.request_id and (mistake := mistake_in_request_id(request.request_id)):
        found.append(Mistake("request_id", mistake))
    for path, name in (("pool", request.pool), ("node", request.node)):
        if name and (mistake := mistake_in_name(name)):
            found.append(Mistake(path, mistake))
    if not 0 <= request.ttl_s <= LONGEST_TTL_S:
        found.append(Mistake("ttl_s", f"must be 1 to {LONGEST_TTL_S} seconds, or 0 for the longest"))
    for i, label in enumerate(request.labels):
        mistake = mistake_in_label_key(label.key) or mistake_in_label_value(label.value)
        if mistake := mistake or mistake_in_cost(label.key, label.value):
            found.append(Mistake(f"labels[{i}]", mistake))
    if len({label.key for label in request.labels}) < len(request.labels):
        found.append(Mistake("labels", "a key stands twice"))
    return found


def _created(token: tokens.Token, record: objects_pb2.JoinToken) -> regional_pb2.CreateJoinTokenResponse:
    return regional_pb2.CreateJoinTokenResponse(token=token.text(), record=_shown(record))


def _shown(record: objects_pb2.JoinToken) -> objects_pb2.JoinToken:
    """Without what is kept for us alone."""
    record.ClearField("hash")
    record.ClearField("request_digest")
    record.ClearField("salt")
    return record


def _put(key: bytes, record: objects_pb2.JoinToken) -> Put:
    return Put(key, record.SerializeToString(deterministic=True))


def _key_digest(csr_pem: bytes) -> str:
    key = x509.load_pem_x509_csr(csr_pem).public_key()
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()[:32]
