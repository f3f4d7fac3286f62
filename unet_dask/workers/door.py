"""The door of a run's own cluster: its processes know each other by a key of this run, and nobody else is let in.

Whoever reaches a scheduler or a worker of Dask runs code as its owner, and every user of a machine reaches its
loopback interface. So all that listens speaks TLS, both sides show the certificate of the run, and its key lies in
memory only: workers are given it through the pipe that starts them, in no argument, no variable and no lasting file.
Pages over HTTP have no such key, so there are none.
"""

from __future__ import annotations

import datetime
import ssl
from typing import Any

from distributed import Scheduler, Worker
from distributed.security import Security

#: Distributed's settings that would open another door.
SETTINGS: dict[str, Any] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}

#: Longer than any run. The key ends with it.
_VALID = datetime.timedelta(days=3650)


class SilentScheduler(Scheduler):  # type: ignore[misc] # distributed ships no types
    """A scheduler without pages."""

    def start_http_server(self, *arguments: Any, **options: Any) -> None:  # distributed's signature
        """Start none."""


class SilentWorker(Worker):  # type: ignore[misc] # distributed ships no types
    """A worker without pages."""

    def start_http_server(self, *arguments: Any, **options: Any) -> None:  # distributed's signature
        """Start none."""


def new_key() -> Security:
    """Return a key and certificate for the processes of one run, whatever the user's settings for other clusters.

    As `Security.temporary` makes them, but on an elliptic curve: an RSA key takes a second on a busy machine.
    """
    key, certificate = _self_signed()
    return Security(
        require_encryption=True,
        tls_ca_file=certificate,
        tls_ciphers=None,
        tls_min_version=ssl.TLSVersion.TLSv1_3,
        tls_max_version=None,
        **{f"tls_{role}_key": key for role in ("client", "scheduler", "worker")},
        **{f"tls_{role}_cert": certificate for role in ("client", "scheduler", "worker")},
    )


def _self_signed() -> tuple[str, str]:
    """Return a private key and a certificate that trusts itself alone, in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "unet-dask")])
    now = datetime.datetime.now(tz=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # a clock that is set back ends no run
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        certificate.public_bytes(Encoding.PEM).decode(),
    )
