"""A server's certificate as its files have it: replaced while it serves, without a restart.

Before each handshake the files are looked at; when they changed and certificate and key fit together they are in force
from that handshake on. Connections that are there stay. Files that cannot be read or do not fit (half of a change, a
mistake) change nothing: the pair in force goes on. gRPC asks on threads of its own, so nothing here touches the loop.
"""

from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from prometheus_client import Counter

from atoll.errors import Invalid
from atoll.identity import TlsFiles

RELOADED = Counter(
    "atoll_server_certificates_reloaded", "Changed certificate files taken into force, by port.", ["port"]
)

_log = structlog.get_logger()


class ServerCertificates:
    def __init__(self, files: TlsFiles) -> None:
        self._files = files

    def credentials(self, *, mutual: bool) -> grpc.ServerCredentials:
        """Of one port; `mutual`: callers must show a certificate too. Raises Invalid for unusable files."""
        port = _Port(self._files, mutual)
        return grpc.dynamic_ssl_server_credentials(port.first, port.changed, mutual)


class _Port:
    def __init__(self, files: TlsFiles, mutual: bool) -> None:
        self._files = files
        self._mutual = mutual
        try:
            self._seen = self._state()
            self.first = self._read()
        except (OSError, ValueError) as error:
            raise Invalid(f"a certificate or key cannot be used: {error}", code="E1014") from error

    def changed(self) -> grpc.ServerCertificateConfiguration:
        """What is in force from here on; None = what was (gRPC's types do not say so)."""
        return self._changed()  # type: ignore[return-value]

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            state = self._state()
            if state == self._seen:
                return None
            fresh = self._read()
        except (OSError, ValueError) as error:
            _log.warning("the server's certificate files do not serve; the old ones go on", reason=str(error))
            return None
        self._seen = state
        RELOADED.labels("programs" if self._mutual else "people").inc()
        return fresh

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        files = self._files
        return tuple(_state_of(path) for path in (files.certificate, files.key, files.ca))

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, key = self._files.certificate.read_bytes(), self._files.key.read_bytes()
        ca = self._files.ca.read_bytes()
        x509.load_pem_x509_certificates(ca)
        private = serialization.load_pem_private_key(key, None)
        if private.public_key() != x509.load_pem_x509_certificate(certificate).public_key():
            raise ValueError(f"the key {self._files.key} is not the one of {self._files.certificate}")
        return grpc.ssl_server_certificate_configuration([(key, certificate)], ca if self._mutual else None)


def _state_of(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
