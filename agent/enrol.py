"""How this node gets its identity: Join with a token once, Renew at half of each certificate's life.

Invariants: the key never leaves the node and is readable by its owner only; it is on disk before Join is sent, so that
a lost answer can be asked for again with the same key; key and certificate change together (a new folder, then one
rename of the link `current`). The token names the digest of the cluster's root: another root gets no token shown.
"""

import asyncio
import random
import shutil

import grpc
import grpc.aio
import structlog

from agent.checkpoint import replace_durably, sync_folder
from agent.config import Settings
from atoll import rpc, tokens
from atoll.api.v1 import agent_pb2, agent_pb2_grpc
from atoll.clock import Clock
from atoll.credentials import why_unusable
from atoll.errors import AtollError, Invalid, NotAllowed, NotAuthenticated
from atoll.identity import TlsFiles, ca_digests, expiry_ms, identity_from_certificate, node_request

log = structlog.get_logger()

CALL_S = 10.0


class Enrolment:
    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._folder = settings.state_dir / "identity"
        self._current = self._folder / "current"
        self._issued_ms = 0
        self._region = ""

    @property
    def files(self) -> TlsFiles:
        return TlsFiles(self._current / "node.crt", self._current / "node.key", self._settings.ca)

    async def identity(self) -> TlsFiles:
        """The node's certificate, joined for when there is none that is valid. Raises AtollError when refused."""
        if why := self.unusable():
            log.info("joining", reason=why)
            await self._join()
        return self.files

    def region(self) -> str:
        """Which this node has joined; empty before."""
        if not self._region and self._expires_ms():
            self._region = identity_from_certificate((self._current / "node.crt").read_bytes()).region
        return self._region

    def unusable(self) -> str:
        """Why this node's certificate is of no use; empty when it is good."""
        if not self._expires_ms():
            return "this node has no certificate"
        return why_unusable(self.files, self._clock.now_ms())

    def renewal_is_due(self) -> bool:
        """Half of the certificate's life, as this process first saw it, has passed."""
        expires_ms = self._expires_ms()
        self._issued_ms = self._issued_ms or int((self._current / "node.crt").stat().st_mtime * 1000)
        return self._clock.now_ms() >= (self._issued_ms + expires_ms) // 2

    async def renew(self, address: str) -> None:
        """Raises AtollError when the region refuses or does not answer: the old certificate still serves."""
        key_pem, csr_pem = node_request()
        async with rpc.channel(address, ca=self._settings.ca, client=self.files) as channel:
            try:
                stub = agent_pb2_grpc.AgentGatewayStub(channel)
                answer = await stub.Renew(agent_pb2.RenewRequest(csr_pem=csr_pem), timeout=CALL_S)
            except grpc.aio.AioRpcError as error:
                raise rpc.error_of(error) from error
        self._keep(key_pem, answer)

    async def _join(self) -> None:
        token = tokens.parse_join(self._settings.join_token)
        if token is None:
            raise Invalid("this node has no valid certificate, and join_token is not a join token", code="E1017")
        try:
            digests = ca_digests(self._settings.ca.read_bytes())
        except (OSError, ValueError) as error:
            raise Invalid(f"the root certificate {self._settings.ca} cannot be read: {error}", code="E1014") from error
        if token.ca_digest not in digests:
            raise Invalid(f"{self._settings.ca} is not the root of the cluster that made the join token", code="E1017")
        if not self._settings.region_people:
            raise Invalid("region_people names no address to join at", code="E1017")
        key_pem, csr_pem = self._joining_key()
        request = agent_pb2.JoinRequest(token=self._settings.join_token, node=self._settings.name, csr_pem=csr_pem)
        delay_ms = self._settings.reconnect_min_ms
        while True:
            for address in self._settings.region_people:
                if answer := await self._ask_to_join(address, request):
                    self._keep(key_pem, answer)
                    shutil.rmtree(self._folder / "joining", ignore_errors=True)
                    return
            await asyncio.sleep(delay_ms * random.uniform(0.5, 1.0) / 1000)
            delay_ms = min(delay_ms * 2, self._settings.reconnect_max_ms)

    async def _ask_to_join(self, address: str, request: agent_pb2.JoinRequest) -> agent_pb2.JoinResponse | None:
        """None = another try may help."""
        async with rpc.channel(address, ca=self._settings.ca) as channel:
            try:
                return await agent_pb2_grpc.AgentGatewayStub(channel).Join(request, timeout=CALL_S)
            except grpc.aio.AioRpcError as failure:
                error: AtollError = rpc.error_of(failure)
        if isinstance(error, Invalid | NotAuthenticated | NotAllowed):
            raise error
        log.warning("joining failed, trying again", address=address, reason=str(error))
        return None

    def _joining_key(self) -> tuple[bytes, bytes]:
        folder = self._folder / "joining"
        key, csr = folder / "node.key", folder / "node.csr"
        if csr.exists():
            return key.read_bytes(), csr.read_bytes()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key_pem, csr_pem = node_request()
        replace_durably(key, key_pem)
        replace_durably(csr, csr_pem)
        return key_pem, csr_pem

    def _keep(self, key_pem: bytes, answer: agent_pb2.JoinResponse) -> None:
        folder = self._folder / str(answer.expires_ms)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_durably(folder / "node.key", key_pem)
        replace_durably(folder / "node.crt", answer.certificate_pem)
        link = self._folder / "current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        link.replace(self._current)
        sync_folder(self._folder)
        self._issued_ms = self._clock.now_ms()
        for old in self._folder.iterdir():
            if old.name.isdigit() and old.name != folder.name:
                shutil.rmtree(old, ignore_errors=True)

    def _expires_ms(self) -> int:
        """0 = there is no certificate."""
        try:
            return expiry_ms((self._current / "node.crt").read_bytes())
        except (OSError, ValueError):
            return 0
