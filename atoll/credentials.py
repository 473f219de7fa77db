"""What can be said of a client's certificate before it is shown to anybody.

TLS tells a client that was refused little more than that it was. The two causes that an operator meets, a certificate
that has expired and one of another cluster, are seen in the files, so they are said in words.
"""

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from atoll.identity import TlsFiles


def why_unusable(files: TlsFiles, now_ms: int) -> str:
    """Why no server of the cluster of `files.ca` takes this certificate; empty when nothing is seen. Files that cannot
    be read are said by who dials with them."""
    try:
        chain = x509.load_pem_x509_certificates(files.certificate.read_bytes())
        roots = x509.load_pem_x509_certificates(files.ca.read_bytes())
    except (OSError, ValueError):
        return ""
    end = min(certificate.not_valid_after_utc for certificate in chain)
    if end <= datetime.fromtimestamp(now_ms / 1000, UTC):
        return f"the certificate {files.certificate} expired at {end:%Y-%m-%d %H:%M:%S} UTC"
    if not any(_issued(chain[-1], root) for root in roots):
        return f"the certificate {files.certificate} is of another cluster than {files.ca}"
    return ""


def _issued(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
