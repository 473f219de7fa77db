"""A cluster's credentials in a folder: a root, a global plane, regions with their issuers and nodes, an admin, users.

Everything is made with the production code, for 127.0.0.1 and localhost.
"""

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from atoll import tokens
from atoll.api.v1.objects_pb2 import Role, UserToken
from atoll.clock import SystemClock
from atoll.identity import CertificateAuthority, RegionIssuer, TlsFiles, node_request, write_private

HOSTS = ("127.0.0.1", "localhost")


class Pki:
    """Credentials are made when first asked for, dated `now_ms` (default: now)."""

    def __init__(self, folder: Path, cluster: str = "test", now_ms: int | None = None) -> None:
        self.folder = folder
        self.now_ms = SystemClock().now_ms() if now_ms is None else now_ms
        self.authority = CertificateAuthority.create(folder / "ca", cluster, self.now_ms)
        self.ca = folder / "ca" / "ca.crt"
        self._users: dict[str, UserToken] = {}

    def global_plane(self, name: str = "g1", hosts: Sequence[str] = HOSTS) -> TlsFiles:
        return self.authority.issue_global(name, hosts, self.folder / f"global-{name}", self.now_ms)

    def region(self, region: str, name: str = "r1", hosts: Sequence[str] = HOSTS) -> TlsFiles:
        return self.authority.issue_region(region, name, hosts, self.folder / f"region-{region}-{name}", self.now_ms)

    def admin(self, name: str = "root") -> TlsFiles:
        return self.authority.issue_admin(name, self.folder / f"admin-{name}", self.now_ms)

    def issuer(self, region: str) -> TlsFiles:
        """The one issuer of `region`: asked again, it is the same."""
        folder = self.folder / f"issuer-{region}"
        if not folder.exists():
            return self.authority.issue_region_issuer(region, folder, self.now_ms)
        return TlsFiles(folder / "issuer.crt", folder / "issuer.key", folder / "ca.crt")

    def node(
        self, region: str, name: str, pool: str = "", labels: Sequence[tuple[str, str]] = (), now_ms: int | None = None
    ) -> TlsFiles:
        issuer = self.issuer(region)
        key, csr = node_request()
        signed = RegionIssuer(issuer.certificate, issuer.key).sign_node(
            csr, node=name, pool=pool, labels=labels, now_ms=self.now_ms if now_ms is None else now_ms
        )
        return self.put(f"node-{region}-{name}", signed.certificate_pem, key)

    def put(self, name: str, certificate_pem: bytes, key_pem: bytes) -> TlsFiles:
        """Writes a pair made by the test itself."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        write_private(folder / "tls.key", key_pem)
        (folder / "tls.crt").write_bytes(certificate_pem)
        return TlsFiles(folder / "tls.crt", folder / "tls.key", self.ca)

    def user(self, name: str, role: Role.ValueType, tenant: str = "", expires_ms: int | None = None) -> str:
        """A new user's token; `find_user` knows it from now on."""
        token = tokens.mint_user()
        expires_ms = self.now_ms + 3_600_000 if expires_ms is None else expires_ms
        self._users[token.id] = UserToken(
            id=token.id, hash=token.hash(), name=name, role=role, tenant=tenant, expires_ms=expires_ms
        )
        return token.text()

    def find_user(self, token_id: str) -> UserToken | None:
        """For `Server(users=...)`."""
        return self._users.get(token_id)

    def revoke_user(self, token: str) -> None:
        """`find_user` knows it no more."""
        del self._users[token.split(".")[1]]

    def forge(
        self, signer: TlsFiles, uri: str, usage: x509.ObjectIdentifier, hosts: Sequence[x509.GeneralName] = ()
    ) -> TlsFiles:
        """What a thief of `signer`'s key could sign: any name, well made, with the signer's chain behind it."""
        certificate = x509.load_pem_x509_certificate(signer.certificate.read_bytes())
        key_pem, _ = node_request()
        signed = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(certificate.subject)
            .public_key(_key(key_pem).public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(certificate.not_valid_before_utc)
            .not_valid_after(certificate.not_valid_after_utc)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), *hosts]), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
            .sign(_key(signer.key.read_bytes()), hashes.SHA256())
        )
        pem = signed.public_bytes(serialization.Encoding.PEM) + signer.certificate.read_bytes()
        return self.put("forged", pem, key_pem)


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
