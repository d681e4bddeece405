"""Keys and certificates for servers on loopback: an authority of our own, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path


class Authority:
    """A certificate authority of the course; what it signs is valid for ten years."""

    def __init__(self, folder: Path, name: str = "course CA") -> None:
        """Read the authority in a folder (``ca.pem``, ``ca.key``), or make one there."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        self.path, key = folder / "ca.pem", folder / "ca.key"
        if key.exists():
            self._key = serialization.load_pem_private_key(key.read_bytes(), None)
            self._name = x509.load_pem_x509_certificate(self.path.read_bytes()).subject
            return
        self._key, self._name = ec.generate_private_key(ec.SECP256R1()), _subject(name)
        uses = dict.fromkeys(_USES, False) | {"key_cert_sign": True, "crl_sign": True}
        certificate = self._sign(
            self._name,
            self._key,
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (x509.KeyUsage(**uses), True),
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(key, _private(self._key))
        _write(self.path, certificate)

    def issue(
        self, stem: Path, name: str, *groups: str, addresses: tuple = (), names: tuple = ()
    ) -> tuple[Path, Path]:
        """Write ``STEM.pem`` and ``STEM.key``, readable by the owner alone, and return both.

        Args:
            stem: their path without the ending.
            name: the common name: what a server is called, or who a client is.
            groups: organizations (for Kubernetes: the client's groups).
            addresses: IP addresses of a server; with these it may be a server too.
            names: its DNS names.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        key, usage = ec.generate_private_key(ec.SECP256R1()), x509.ExtendedKeyUsageOID
        extensions = [(x509.ExtendedKeyUsage([usage.CLIENT_AUTH]), False)]
        if addresses:
            known = [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses]
            known += [x509.DNSName(one) for one in names]
            both = x509.ExtendedKeyUsage([usage.CLIENT_AUTH, usage.SERVER_AUTH])
            extensions = [(both, False), (x509.SubjectAlternativeName(known), False)]
        files = stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.key")
        stem.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(files[0], self._sign(_subject(name, *groups), key, *extensions))
        _write(files[1], _private(key))
        return files

    def _sign(self, subject, key, *extensions) -> bytes:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=3650))
        )
        identifiers = (  # Python 3.13 wants them
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
        )
        for extension, critical in (*extensions, *((one, False) for one in identifiers)):
            builder = builder.add_extension(extension, critical)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def make(folder: Path) -> None:
    """Write what a Docker Engine on loopback and its client need, as Docker wants it.

    Args:
        folder: receives ``client/`` (what ``DOCKER_CERT_PATH`` names) and ``server/``, each with
            ``ca.pem``, ``cert.pem`` and ``key.pem``; the server's is valid for 127.0.0.1 only.
    """
    authority = Authority(folder)
    for side, addresses in (("server", ("127.0.0.1",)), ("client", ())):
        certificate, key = authority.issue(folder / side / "cert", side, addresses=addresses)
        key.rename(certificate.with_name("key.pem"))
        _write(folder / side / "ca.pem", authority.path.read_bytes())
    authority.path.unlink()
    (folder / "ca.key").unlink()


_USES = (
    "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
    "key_cert_sign crl_sign encipher_only decipher_only"
).split()


def _subject(name: str, *groups: str):
    from cryptography import x509

    parts = [(x509.NameOID.ORGANIZATION_NAME, one) for one in groups]
    parts.append((x509.NameOID.COMMON_NAME, name))
    return x509.Name([x509.NameAttribute(*part) for part in parts])


def _private(key) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
