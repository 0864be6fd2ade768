"""Certificates for tests, good and bad, made in milliseconds and valid for this test run."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


class Authority:
    """Signs certificates for servers; `bundle` is the file that makes a client trust it."""

    def __init__(self, directory: Path, name: str = "tests") -> None:
        self._directory = directory
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._made = 0
        own = _builder(name, name, self._key, self._key, timedelta(0)).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self.bundle = directory / f"{name}.pem"
        self.bundle.write_bytes(_pem(own.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())))

    def certificate(self, *names: str, shifted: timedelta = timedelta(0), self_signed: bool = False) -> Path:
        """A file with a key and a certificate for these names or addresses, valid for a day before and after now,
        `shifted`."""
        key = ec.generate_private_key(ec.SECP256R1())
        by, signer = (names[0], key) if self_signed else (self._name, self._key)
        builder = _builder(names[0], by, key, signer, shifted)
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        self._made += 1
        file = self._directory / f"{self._name}-{self._made}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + _pem(builder.sign(signer, hashes.SHA256())))
        return file


def server_context(certificate: Path) -> ssl.SSLContext:
    """What a server shows that certificate by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def _builder(
    name: str, by: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, shifted: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC) + shifted
    builder = x509.CertificateBuilder().subject_name(_name(name)).issuer_name(_name(by)).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - DAY).not_valid_after(now + DAY)
    subject = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return builder.add_extension(subject, critical=False).add_extension(issuer, critical=False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)
