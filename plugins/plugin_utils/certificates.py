"""The certificates that the control node makes for broker, result store and their clients, and the CA of them all."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_atomically
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import FILE, SECRET_DIRECTORY, SECRET_FILE
from ansible_collections.celery_ops.kit.plugins.plugin_utils.ip import as_ip
from ansible_collections.celery_ops.kit.plugins.plugin_utils.tls import CA_NAME
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME, LIFETIME_OF_CA = datetime.timedelta(days=397), datetime.timedelta(days=3652)
RENEW = datetime.timedelta(days=60)
"""Before its end, a certificate is replaced by the next run."""


class Certificates:
    """A CA and certificates for hosts, in a directory of the control node that nobody else may read."""

    def __init__(self, directory: Path, ca: Path, now: datetime.datetime | None = None) -> None:
        self.directory, self.ca, self.ca_key = directory, ca, directory / "ca.key"
        self.next_key, self.former = directory / "ca.key.new", directory / "ca.crt.old"
        self.now = now or datetime.datetime.now(datetime.UTC)

    def certificate(self, host: str) -> Path:
        """Return the file of a host's certificate."""
        return self.directory / f"{host}.crt"

    def key(self, host: str) -> Path:
        """Return the file of its key."""
        return self.directory / f"{host}.key"

    def lacks(self, host: str, names: Iterable[str]) -> str:
        """Return why a host needs a new certificate; "" where it has a good one."""
        if not self.certificate(host).exists() or not self.key(host).exists():
            return "there is none"
        return self._lacks(self.certificate(host).read_bytes(), self.key(host).read_bytes(), names)

    def lacks_client(self, file: Path) -> str:
        """Return why clients need another file to show, which has a certificate and its key; "" for a good one."""
        if not file.exists():
            return "there is none"
        text = file.read_bytes()
        return self._lacks(text, text, ()) or for_servers_alone(text)

    def _lacks(self, certificate: bytes, key_text: bytes, names: Iterable[str]) -> str:
        [found, *_] = x509.load_pem_x509_certificates(certificate)
        if found.not_valid_after_utc - self.now < RENEW:
            return f"it ends on {found.not_valid_after_utc:%Y-%m-%d}"
        key = serialization.load_pem_private_key(key_text, None)
        if key.public_key() != found.public_key():
            return "its key is another one"
        if missing := sorted(set(names) - alternative_names(found)):
            return f"it is not for {', '.join(missing)}"
        if not any(is_issued_by(found, ca) for ca in self.authorities()):
            return "no CA of the file has signed it"
        if (
            self.former.exists()
            and not self.next_key.exists()
            and any(is_issued_by(found, ca) for ca in self.leaving())
        ):
            return "the CA that has signed it goes"
        return ""

    def lacks_client_use(self, host: str) -> str:
        """Return why a host's certificate can't be shown to another server; "" where it can."""
        return for_servers_alone(self.certificate(host).read_bytes())

    def authorities(self) -> list[x509.Certificate]:
        """Return the certificates of the CA's file."""
        return x509.load_pem_x509_certificates(self.ca.read_bytes()) if self.ca.exists() else []

    def make(self, host: str, names: Iterable[str]) -> None:
        """Make a certificate for a host, and before it the CA, if there is none. Raises OperatorError."""
        names_in_it = [x509.IPAddress(ip) if (ip := as_ip(name)) else x509.DNSName(name) for name in names]
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        key, made = self._signed(host, uses, names_in_it)
        write_atomically(self.key(host), key, SECRET_FILE)
        write_atomically(self.certificate(host), made, FILE)

    def make_client(self, file: Path, name: str) -> None:
        """Make what a client shows, certificate and key in one file. No server can be posed as with it."""
        key, made = self._signed(name, [ExtendedKeyUsageOID.CLIENT_AUTH], [])
        file.parent.mkdir(mode=SECRET_DIRECTORY, exist_ok=True)
        write_atomically(file, key + made, SECRET_FILE)

    def _signed(self, name: str, uses: list[x509.ObjectIdentifier], sans: list[Any]) -> tuple[bytes, bytes]:
        """Return a new key and its certificate as they are written."""
        for directory in (*reversed(self.directory.parents), self.directory):  # the mode holds for no parent by itself
            directory.mkdir(mode=SECRET_DIRECTORY, exist_ok=True)
        authority, signing_key = self.authority()
        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            self.builder(name, key, LIFETIME)
            .issuer_name(authority.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        )
        if sans:
            made = made.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        return private_text(key), pem(made.sign(signing_key, hashes.SHA256()))

    def leaving(self) -> list[x509.Certificate]:
        """Return the CA that a rotation is about to remove; empty without one."""
        return x509.load_pem_x509_certificates(self.former.read_bytes()) if self.former.exists() else []

    def begin_rotation(self) -> bool:
        """Put another CA beside the one that signs; say whether that was still to be done. Raises OperatorError.

        Each of the three steps can be repeated, so that a run that was interrupted is completed by the next one.
        """
        if self.former.exists():
            return False
        signing, _ = self.authority()
        if not self.next_key.exists():
            write_atomically(self.next_key, private_text(ec.generate_private_key(ec.SECP256R1())), SECRET_FILE)
        key = serialization.load_pem_private_key(self.next_key.read_bytes(), None)
        known = self.authorities()
        if all(found.public_key() != key.public_key() for found in known):
            write_atomically(self.ca, pem(*known, self.self_signed(key)), FILE)
        write_atomically(self.former, pem(signing), SECRET_FILE)
        return True

    def sign_with_next(self) -> bool:
        """Let the new CA sign from now on; say whether that was still to be done."""
        if not self.next_key.exists():
            return False
        self.next_key.replace(self.ca_key)
        return True

    def withdraw_former(self) -> bool:
        """Remove the former CA from the CA's file; say whether it was there."""
        found, former = self.authorities(), self.leaving()
        stay = [each for each in found if each not in former]
        if stay == found:
            return False
        write_atomically(self.ca, pem(*stay), FILE)
        return True

    def end_rotation(self) -> bool:
        """Remove what tells that a rotation is under way, once nobody trusts the former CA; say whether one was."""
        under_way = self.former.exists()
        self.former.unlink(missing_ok=True)
        return under_way

    def authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Return the CA that signs, and its key; made if there is neither. Raises OperatorError where one is lost."""
        if self.ca_key.exists():
            key = serialization.load_pem_private_key(self.ca_key.read_bytes(), None)
            for found in self.authorities():
                if found.public_key() == key.public_key():
                    return found, key
            raise OperatorError(f"{self.ca} has no certificate for {self.ca_key}. Restore both from your backup.")
        if self.ca.exists():
            raise OperatorError(f"{self.ca} is there and {self.ca_key} is not. Restore it from your backup.")
        key = ec.generate_private_key(ec.SECP256R1())
        made = self.self_signed(key)
        write_atomically(self.ca_key, private_text(key), SECRET_FILE)
        write_atomically(self.ca, pem(made), FILE)
        return made, key

    def self_signed(self, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        """Return a CA's own certificate."""
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        # Of two CAs in one file each has a name of its own.
        name = f"{CA_NAME} {own.digest.hex()[:8]}"
        return (
            self.builder(name, key, LIFETIME_OF_CA)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            # Python 3.13 refuses a CA without it.
            .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
            .add_extension(own, critical=False)
            .sign(key, hashes.SHA256())
        )

    def builder(self, name: str, key: ec.EllipticCurvePrivateKey, lifetime: datetime.timedelta) -> Any:
        """Return what all certificates have in common; clocks of hosts may be an hour behind."""
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - datetime.timedelta(hours=1))
            .not_valid_after(self.now + lifetime)
        )


def authorities_in(text: str) -> list[str]:
    """Return the names of the CAs in a text that were made here, each once; none where it holds no certificate."""
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return []
    names = [name.value for each in found for name in each.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return [name for name in dict.fromkeys(map(str, names)) if name.startswith(f"{CA_NAME} ")]


def for_servers_alone(certificate: bytes) -> str:
    """Return why a client can't show a certificate; "" where it can."""
    [found, *_] = x509.load_pem_x509_certificates(certificate)
    try:
        uses = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ""
    return "" if ExtendedKeyUsageOID.CLIENT_AUTH in uses else "it is for servers alone (extendedKeyUsage)"


def alternative_names(certificate: x509.Certificate) -> set[str]:
    """Return the names and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Tell whether a CA has signed a certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:
        return False
    return True


def pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as they are written."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def private_text(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key as it is written."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
