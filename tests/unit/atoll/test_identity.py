"""The certificate authority and what a certificate proves. Bytes on disk and names inside; TLS is tested in
tests/integration/test_security.py.
"""

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from atoll.api.v1.objects_pb2 import ROLE_ADMIN, ROLE_GLOBAL, ROLE_NODE, ROLE_REGION
from atoll.errors import Invalid, NotAuthenticated
from atoll.identity import (
    CertificateAuthority,
    Identity,
    RegionIssuer,
    ca_digests,
    expiry_ms,
    identity_from_certificate,
    node_request,
)
from tests.support.pki import Pki

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"), now_ms=NOW_MS)


@pytest.fixture(scope="module")
def issuer(pki: Pki) -> RegionIssuer:
    files = pki.issuer("east")
    return RegionIssuer(files.certificate, files.key)


def test_each_kind_of_certificate_proves_its_holder(pki: Pki) -> None:
    ends = NOW_MS + 90 * DAY_MS
    for files, expected in (
        (pki.global_plane("g1"), Identity(ROLE_GLOBAL, "g1", cluster="test", expires_ms=ends)),
        (pki.region("east", "r1"), Identity(ROLE_REGION, "r1", region="east", cluster="test", expires_ms=ends)),
        (pki.admin("ann"), Identity(ROLE_ADMIN, "ann", cluster="test", expires_ms=ends)),
        (
            pki.node("east", "n1", "gpu", [("trusted/zone", "a")]),
            Identity(ROLE_NODE, "n1", "", "east", "n1", "gpu", (("trusted/zone", "a"),), "test", NOW_MS + DAY_MS),
        ),
    ):
        assert identity_from_certificate(files.certificate.read_bytes()) == expected


texts = st.text(st.characters(codec="utf-8"), max_size=30)


@given(pool=texts, labels=st.lists(st.tuples(texts.filter(lambda key: "=" not in key), texts), max_size=3))
def test_pool_and_labels_travel_unchanged(issuer: RegionIssuer, pool: str, labels: list[tuple[str, str]]) -> None:
    """Whatever they hold, they come back as they were and cannot pass for one another."""
    signed = issuer.sign_node(node_request()[1], node="n", pool=pool, labels=labels, now_ms=NOW_MS)
    identity = identity_from_certificate(signed.certificate_pem)
    assert (identity.name, identity.region) == ("n", "east")
    assert identity.pool == pool
    assert list(identity.labels) == sorted(labels)


def test_keys_are_for_their_owner_only(pki: Pki) -> None:
    pki.issuer("east")
    keys = list(pki.folder.rglob("*.key"))
    assert len(keys) >= 2
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}


def test_a_root_is_never_replaced(pki: Pki) -> None:
    before = pki.ca.read_bytes()
    with pytest.raises(Invalid, match="already"):
        CertificateAuthority.create(pki.ca.parent, "test", NOW_MS)
    assert pki.ca.read_bytes() == before


def test_lives_and_limits_of_the_authorities(pki: Pki) -> None:
    root = x509.load_pem_x509_certificate(pki.ca.read_bytes())
    east = x509.load_pem_x509_certificate(pki.issuer("east").certificate.read_bytes())
    assert expiry_ms(pki.ca.read_bytes()) == NOW_MS + 3650 * DAY_MS
    assert expiry_ms(pki.issuer("east").certificate.read_bytes()) == NOW_MS + 365 * DAY_MS
    for certificate, path_length in ((root, 1), (east, 0)):
        constraint = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraint.critical
        assert constraint.value == x509.BasicConstraints(ca=True, path_length=path_length)


def test_a_request_gives_its_key_and_no_name(pki: Pki, issuer: RegionIssuer) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("atoll://test/admin/root")]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    signed = issuer.sign_node(greedy, node="n1", pool="", labels=(), now_ms=NOW_MS).certificate_pem
    certificate = x509.load_pem_x509_certificate(signed)
    assert identity_from_certificate(signed).role == ROLE_NODE
    assert certificate.subject.rfc4514_string() == "CN=n1"
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.public_key() == key.public_key()


def _csr(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    algorithm = hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.PEM)


def _with_a_wrong_signature() -> bytes:
    pem = node_request()[1]
    der = bytearray(x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "csr",
    [
        b"",
        b"x" * 10_000,
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        _csr(ed25519.Ed25519PrivateKey.generate()),
        _csr(ec.generate_private_key(ec.SECP384R1())),
        _with_a_wrong_signature(),
    ],
    ids=["empty", "noise", "broken", "ed25519", "p384", "signature"],
)
def test_a_bad_request_is_refused(issuer: RegionIssuer, csr: bytes) -> None:
    with pytest.raises(Invalid, match="certificate request"):
        issuer.sign_node(csr, node="n1", pool="", labels=(), now_ms=NOW_MS)


@pytest.mark.parametrize("name", ["", "a/b", "..", "A", "n\0", "x" * 10_240, "n?pool=gpu", "n#", "n1\n"])
def test_names_that_could_mean_something_else_are_refused(pki: Pki, issuer: RegionIssuer, name: str) -> None:
    with pytest.raises(Invalid):
        issuer.sign_node(node_request()[1], node=name, pool="", labels=(), now_ms=NOW_MS)
    with pytest.raises(Invalid):
        pki.region(name)
    with pytest.raises(Invalid):
        pki.authority.issue_region_issuer(name, pki.folder / "never", NOW_MS)


def test_an_authority_needs_its_own_key_and_kind(pki: Pki) -> None:
    east, west = pki.issuer("east"), pki.issuer("west")
    with pytest.raises(Invalid, match="not the key"):
        RegionIssuer(east.certificate, west.key)
    with pytest.raises(Invalid, match="not a region authority"):
        RegionIssuer(pki.ca, pki.ca.with_suffix(".key"))
    with pytest.raises(Invalid, match="no certificate authority"):
        CertificateAuthority(pki.folder)


def _self_made(issuer: tuple[str, str, str], uris: list[str]) -> bytes:
    """A certificate as `issuer` (cluster, unit, name) would have signed it: TLS is not asked here."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = (NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.COMMON_NAME)
    now = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(
            x509.Name([x509.NameAttribute(oid, part) for oid, part in zip(names, issuer, strict=True) if part])
        )
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now)
    )
    if uris:
        san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(san, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


ROOT, EAST = ("c", "root", "c"), ("c", "region", "east")


@pytest.mark.parametrize(
    ("issuer_name", "uris"),
    [
        (EAST, ["atoll://c/node/west/n"]),
        (EAST, ["atoll://c/admin/a"]),
        (EAST, ["atoll://c/region/east/r"]),
        (EAST, ["atoll://c/global/g"]),
        (ROOT, ["atoll://c/node/east/n"]),
        (ROOT, ["atoll://other/admin/a"]),
        (("c", "region", "c"), ["atoll://c/admin/a"]),
        (("c", "root", ""), ["atoll://c/admin/a"]),
        (ROOT, []),
        (ROOT, ["atoll://c/admin/a", "atoll://c/admin/b"]),
        (ROOT, ["https://c/admin/a"]),
        (ROOT, ["atoll://c/admin"]),
        (ROOT, ["atoll://c/admin/a/b"]),
        (ROOT, ["atoll://c/root/a"]),
        (ROOT, ["atoll://c/admin/A"]),
        (ROOT, ["atoll://c/admin/a#b"]),
        (ROOT, ["atoll://c/region/east/.."]),
        (EAST, ["atoll://c/node/east/n?pool"]),
    ],
)
def test_certificates_that_prove_nothing(issuer_name: tuple[str, str, str], uris: list[str]) -> None:
    with pytest.raises(NotAuthenticated):
        identity_from_certificate(_self_made(issuer_name, uris))


def test_the_right_issuer_proves_it() -> None:
    assert identity_from_certificate(_self_made(ROOT, ["atoll://c/admin/a"])).role == ROLE_ADMIN
    assert identity_from_certificate(_self_made(EAST, ["atoll://c/node/east/n"])).region == "east"


def test_the_digest_tells_roots_apart(pki: Pki, tmp_path: Path) -> None:
    other = Pki(tmp_path, now_ms=NOW_MS).ca.read_bytes()
    (digest,) = ca_digests(pki.ca.read_bytes())
    assert len(digest) == 64
    assert ca_digests(pki.ca.read_bytes() + other) == [digest, *ca_digests(other)]
    assert digest not in ca_digests(other)
