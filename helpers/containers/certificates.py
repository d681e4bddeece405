"""Keys and certificates for a Docker Engine that is reached over TCP on loopback."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path


def make(folder: Path) -> None:
    """Write a certificate authority, and a key and certificate for each side, as Docker wants them.

    Args:
        folder: receives ``client/`` (what ``DOCKER_CERT_PATH`` names) and ``server/``, each with
            ``ca.pem``, ``cert.pem`` and ``key.pem``, readable by the owner alone. They are valid
            for ten years, and the server's for 127.0.0.1 only.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def certificate(subject: str, key, extension, critical: bool = False):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("course CA"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=3650))
            .add_extension(extension, critical)
        )
        return builder.sign(authority, hashes.SHA256())

    now = datetime.datetime.now(datetime.UTC)
    authority = ec.generate_private_key(ec.SECP256R1())
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    ca = certificate("course CA", authority, constraints, critical=True)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    client = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH])
    for side, extension in (("server", loopback), ("client", client)):
        key = ec.generate_private_key(ec.SECP256R1())
        files = {
            "ca.pem": ca.public_bytes(serialization.Encoding.PEM),
            "cert.pem": certificate(side, key, extension).public_bytes(serialization.Encoding.PEM),
            "key.pem": key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        }
        (folder / side).mkdir(mode=0o700, parents=True)
        for filename, data in files.items():
            (folder / side / filename).write_bytes(data)
            (folder / side / filename).chmod(0o600)
