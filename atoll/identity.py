"""Who is who: the cluster's own certificate authority, and the identity that a certificate proves.

A certificate names its holder in one URI (`atoll://<cluster>/<role>/<name>`); DNS and IP names are for finding the
right host, never for identity. The root signs the programs, the admins and one issuer a region; that issuer signs the
region's nodes and nothing else: it is limited to client certificates, may sign no further authority, and a certificate
from it that claims another role or another region proves nothing here. Keys are ECDSA P-256: gRPC's TLS does not offer
Ed25519. What a holder may do is decided in `atoll.authorization`.

| certificate | URI | signed by | lives |
|---|---|---|---|
| global plane | atoll://c/global/name | root | 90 days |
| region | atoll://c/region/region/name | root | 90 days |
| admin | atoll://c/admin/name | root | 90 days |
| issuer of a region | none: O=c, OU=region, CN=region | root | 1 year |
| node | atoll://c/node/region/name?pool=p&label=k=v | its region's issuer | 24 hours |
"""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from atoll.api.v1.objects_pb2 import ROLE_ADMIN, ROLE_GLOBAL, ROLE_NODE, ROLE_REGION, Role
from atoll.errors import Invalid, NotAuthenticated
from atoll.model.names import mistake_in_name

ROOT_LIFE = datetime.timedelta(days=3650)
ISSUER_LIFE = datetime.timedelta(days=365)
PROGRAM_LIFE = datetime.timedelta(days=90)
NODE_LIFE = datetime.timedelta(hours=24)
BACKDATED = datetime.timedelta(minutes=5)  # for a reader whose clock is behind

_ROOT, _ISSUER = "root", "region"  # organizational unit of the two kinds of authority
_ROLES = {"global": ROLE_GLOBAL, "region": ROLE_REGION, "admin": ROLE_ADMIN, "node": ROLE_NODE}
_CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller, proven by a certificate or a user token. Empty fields do not apply to its role."""

    role: Role.ValueType
    name: str
    tenant: str = ""
    region: str = ""
    node: str = ""
    pool: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    cluster: str = ""
    expires_ms: int = 0  # of the credential that proved it


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a program presents (`certificate`, with the chain below the root, and its `key`) and whom it trusts."""

    certificate: Path
    key: Path
    ca: Path


def tls_to_etcd(ca: Path | None, certificate: Path | None, key: Path | None) -> TlsFiles | None:
    """The files for TLS to etcd; None = plain text. Raises ValueError when only some are named."""
    if ca and certificate and key:
        return TlsFiles(certificate, key, ca)
    if ca or certificate or key:
        raise ValueError("etcd_ca, etcd_certificate and etcd_key belong together")
    return None


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    certificate_pem: bytes  # with the issuer's behind it
    expires_ms: int


class CertificateAuthority:
    """The root, in a folder of its own: `ca.crt` for everybody, `ca.key` for the operator only (mode 0600)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._certificate, self._key = _read_authority(folder / "ca.crt", folder / "ca.key", _ROOT)
        self.cluster = _name_part(self._certificate.subject, NameOID.ORGANIZATION_NAME)

    @classmethod
    def create(cls, folder: Path, cluster: str, now_ms: int) -> "CertificateAuthority":
        """A new root. Refuses a folder that has one: everything signed so far would be void."""
        _check_name("cluster", cluster)
        if (folder / "ca.crt").exists():  # written after the key: with a key alone, nothing was signed yet
            raise Invalid(f"{folder} already holds a certificate authority", code="E1022")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _authority_name(cluster, _ROOT, cluster)
        builder = _builder(subject, subject, key.public_key(), now_ms, ROOT_LIFE)
        certificate = _as_authority(builder, path_length=1).sign(key, hashes.SHA256())
        _write_pair(folder, "ca", [certificate], key)
        return cls(folder)

    def issue_global(self, name: str, hosts: Sequence[str], into: Path, now_ms: int) -> TlsFiles:
        return self._issue("global", (name,), hosts, into, now_ms)

    def issue_region(self, region: str, name: str, hosts: Sequence[str], into: Path, now_ms: int) -> TlsFiles:
        return self._issue("region", (region, name), hosts, into, now_ms)

    def issue_admin(self, name: str, into: Path, now_ms: int) -> TlsFiles:
        return self._issue("admin", (name,), (), into, now_ms)

    def issue_region_issuer(self, region: str, into: Path, now_ms: int) -> TlsFiles:
        """The authority that signs the nodes of `region`: files `issuer.crt` and `issuer.key`."""
        _check_name("region", region)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _authority_name(self.cluster, _ISSUER, region)
        builder = _builder(subject, self._certificate.subject, key.public_key(), now_ms, ISSUER_LIFE)
        builder = builder.add_extension(x509.ExtendedKeyUsage(_CLIENT), critical=True)
        builder = _signed_by(builder, self._certificate)
        certificate = _as_authority(builder, path_length=0).sign(self._key, hashes.SHA256())
        return self._write(into, "issuer", certificate, key)

    def _issue(self, role: str, names: tuple[str, ...], hosts: Sequence[str], into: Path, now_ms: int) -> TlsFiles:
        for name in names:
            _check_name(role, name)
        key = ec.generate_private_key(ec.SECP256R1())
        uri = f"atoll://{self.cluster}/{role}/{'/'.join(names)}"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[-1])])
        builder = _builder(subject, self._certificate.subject, key.public_key(), now_ms, PROGRAM_LIFE)
        builder = _as_holder(builder, uri, hosts, _BOTH if hosts else _CLIENT)
        certificate = _signed_by(builder, self._certificate).sign(self._key, hashes.SHA256())
        return self._write(into, role, certificate, key)

    def _write(self, into: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> TlsFiles:
        _write_pair(into, name, [certificate], key)
        ca = into / "ca.crt"
        ca.write_bytes((self.folder / "ca.crt").read_bytes())
        return TlsFiles(into / f"{name}.crt", into / f"{name}.key", ca)


class RegionIssuer:
    """Signs the nodes of its one region."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = _read_authority(certificate, key, _ISSUER)
        self.region = _name_part(self._certificate.subject, NameOID.COMMON_NAME)
        self.cluster = _name_part(self._certificate.subject, NameOID.ORGANIZATION_NAME)

    def secret(self) -> bytes:
        """32 bytes that only those who hold this issuer's key know, from which to derive others."""
        number = self._key.private_numbers().private_value.to_bytes(66)
        return HKDF(hashes.SHA256(), 32, salt=None, info=b"atoll region secret").derive(number)

    def sign_node(
        self, csr_pem: bytes, *, node: str, pool: str, labels: Sequence[tuple[str, str]], now_ms: int
    ) -> NodeCertificate:
        """A certificate for the CSR's key. Its names are the caller's: what the CSR asks to be called is ignored."""
        _check_name("node", node)
        public_key = _key_of_request(csr_pem)
        pairs = [("pool", pool)] if pool else []
        pairs += [("label", f"{key}={value}") for key, value in sorted(labels)]
        uri = f"atoll://{self.cluster}/node/{self.region}/{node}" + (f"?{urlencode(pairs)}" if pairs else "")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
        builder = _builder(subject, self._certificate.subject, public_key, now_ms, NODE_LIFE)
        builder = _as_holder(builder, uri, (), _CLIENT)
        certificate = _signed_by(builder, self._certificate).sign(self._key, hashes.SHA256())
        return NodeCertificate(_pem(certificate) + _pem(self._certificate), _expiry_ms(certificate))


def node_request() -> tuple[bytes, bytes]:
    """A fresh key and its CSR, both PEM, for a node that joins or renews. The key never leaves the node."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return _key_pem(key), csr.public_bytes(serialization.Encoding.PEM)


def ca_digests(ca_pem: bytes) -> list[str]:
    """SHA-256 of each root, in hex, the one that signs first: a join token carries it, so that an agent knows the right
    cluster."""
    return [root.fingerprint(hashes.SHA256()).hex() for root in x509.load_pem_x509_certificates(ca_pem)]


def expiry_ms(certificate_pem: bytes) -> int:
    return _expiry_ms(x509.load_pem_x509_certificate(certificate_pem))


def identity_from_certificate(pem: bytes) -> Identity:
    """What the certificate proves. The TLS handshake has verified its chain to the root; here the issuer's *name* is
    held against the role and region it claims. Raises NotAuthenticated.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = san.get_values_for_type(x509.UniformResourceIdentifier)
        (uri,) = uris
        cluster = _name_part(certificate.issuer, NameOID.ORGANIZATION_NAME)
        unit = _name_part(certificate.issuer, NameOID.ORGANIZATIONAL_UNIT_NAME)
        signer = _name_part(certificate.issuer, NameOID.COMMON_NAME)
        identity = _from_uri(uri, cluster, _expiry_ms(certificate))
    except (ValueError, x509.ExtensionNotFound) as error:
        raise NotAuthenticated(f"the certificate names no member of this cluster: {error}") from error
    expected = (_ISSUER, identity.region) if identity.role == ROLE_NODE else (_ROOT, cluster)
    if (unit, signer) != expected:
        raise NotAuthenticated(f"{unit} {signer} may not sign {uri}")
    return identity


def _from_uri(uri: str, cluster: str, expires_ms: int) -> Identity:
    parts = urlsplit(uri)
    if parts.scheme != "atoll" or parts.netloc != cluster or parts.fragment:
        raise ValueError(f"{uri!r} is not of cluster {cluster!r}")
    match parts.path.split("/")[1:]:
        case ["global" | "admin" as role, name]:
            region = ""
        case ["region" | "node" as role, region, name]:
            pass
        case _:
            raise ValueError(f"{uri!r} has no known form")
    if any(mistake_in_name(part) for part in parts.path.split("/")[1:]):
        raise ValueError(f"{uri!r} has a name that is not allowed")
    query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    return Identity(
        role=_ROLES[role],
        name=name,
        region=region,
        node=name if role == "node" else "",
        pool=next((value for key, value in query if key == "pool"), ""),
        labels=tuple(_label(value) for key, value in query if key == "label"),
        cluster=cluster,
        expires_ms=expires_ms,
    )


def _label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _key_of_request(csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        valid = csr.is_signature_valid
        key = csr.public_key()
    except (ValueError, InvalidSignature) as error:
        raise Invalid(f"the certificate request cannot be read: {error}", code="E1023") from error
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise Invalid("the certificate request must be signed by its own P-256 key", code="E1023")
    return key


# ---------------------------------------------------------------- building and reading


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now_ms: int, life: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.fromtimestamp(now_ms // 1000, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _as_authority(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True).add_extension(
        _key_usage(authority=True), critical=True
    )


def _as_holder(
    builder: x509.CertificateBuilder, uri: str, hosts: Sequence[str], usages: Sequence[x509.ObjectIdentifier]
) -> x509.CertificateBuilder:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri), *map(_host, hosts)]
    return (
        builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=True)
    )


def _signed_by(builder: x509.CertificateBuilder, issuer: x509.Certificate) -> x509.CertificateBuilder:
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_name(cluster: str, unit: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _name_part(name: x509.Name, part: x509.ObjectIdentifier) -> str:
    values = name.get_attributes_for_oid(part)
    if len(values) != 1 or not isinstance(values[0].value, str):
        raise ValueError(f"{name.rfc4514_string()!r} has no single {part._name}")
    return values[0].value


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _check_name(what: str, name: str) -> None:
    mistake = mistake_in_name(name)
    if mistake:
        raise Invalid(f"the name of the {what} {mistake}", code="E1021")


def _read_authority(
    certificate_path: Path, key_path: Path, unit: str
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        found = _name_part(certificate.subject, NameOID.ORGANIZATIONAL_UNIT_NAME)
    except (OSError, ValueError, TypeError) as error:
        raise Invalid(f"no certificate authority in {certificate_path}, {key_path}: {error}", code="E1022") from error
    if found != unit or not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Invalid(f"{certificate_path} is not a {unit} authority of this cluster", code="E1022")
    if certificate.public_key() != key.public_key():
        raise Invalid(f"{key_path} is not the key of {certificate_path}", code="E1022")
    return certificate, key


def _write_pair(
    folder: Path, name: str, certificates: Sequence[x509.Certificate], key: ec.EllipticCurvePrivateKey
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_private(folder / f"{name}.key", _key_pem(key))
    (folder / f"{name}.crt").write_bytes(b"".join(map(_pem, certificates)))


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only its owner may ever read: never, not even for a moment, with a wider mode."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _expiry_ms(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp() * 1000)
