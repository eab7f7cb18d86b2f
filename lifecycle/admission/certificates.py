"""The certificates of the admission port: an authority of our own, and a leaf that is renewed before it ends.

A new authority is trusted before it is used: first the bundle has both, then clusters report that they have the
bundle, then its leaf is served, and a day later the old authority leaves the bundle. No review fails meanwhile. This
module needs no Django, so that the port opens without a database.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import os
import signal
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

FOLDER: Final = "tls"
CERTIFICATE: Final = "leaf.pem"  # the leaf, as granian reads it
KEY: Final = "leaf-key.pem"  # PKCS#8: granian takes no other
PID: Final = "server.pid"
LEAF_LIFE: Final = timedelta(days=90)
LEAF_RENEWED_AFTER: Final = timedelta(days=60)
CA_LIFE: Final = timedelta(days=3650)
OLD_CA_KEPT: Final = timedelta(days=1)  # in the bundle, after the new leaf is served
_CA: Final = "ca.pem"
_CA_KEY: Final = "ca-key.pem"
_NEXT: Final = "next-ca.pem"
_NEXT_KEY: Final = "next-ca-key.pem"
_OLD: Final = "old-ca.pem"
_BACKDATED: Final = timedelta(hours=1)  # the clock of a cluster may be behind


@dataclass(frozen=True, slots=True)
class State:
    """What is served and trusted now."""

    names: tuple[str, ...]
    not_after: datetime
    bundle: str  # PEM of all authorities that clusters should trust
    rotating_since: datetime | None  # a new authority waits since then until clusters trust it; None: none does
    keeps_old: bool  # the old authority is still in the bundle

    @property
    def is_rotating(self) -> bool:
        """Whether a new authority waits."""
        return self.rotating_since is not None

    @property
    def bundle_sha256(self) -> str:
        return sha256_of(self.bundle)


def sha256_of(bundle: str) -> str:
    """Return the hash by which agents say which bundle their webhooks have."""
    return hashlib.sha256(bundle.encode()).hexdigest()


def ensure(folder: Path, names: Sequence[str], *, now: datetime | None = None) -> bool:
    """Make what is missing or ends soon: the authority, and the leaf for `names`. Return whether the leaf is new."""
    at = now or datetime.now(UTC)
    with _alone(folder) as tls:
        if not (tls / _CA).exists() or not (tls / _CA_KEY).exists():
            _make_authority(tls, _CA, _CA_KEY, at)
            (tls / CERTIFICATE).unlink(missing_ok=True)
        old = tls / _OLD
        if old.exists() and at - datetime.fromtimestamp(old.stat().st_mtime, UTC) > OLD_CA_KEPT:
            old.unlink()
        if not _is_good(tls, names, at):
            _make_leaf(tls, names, at)
            return True
    return False


def rotate(folder: Path, *, now: datetime | None = None) -> None:
    """Make a new authority, which the bundle includes from now on. The leaf stays that of the present one."""
    with _alone(folder) as tls:
        if not (tls / _NEXT).exists():
            _make_authority(tls, _NEXT, _NEXT_KEY, now or datetime.now(UTC))


def use_new_authority(folder: Path, names: Sequence[str], *, now: datetime | None = None) -> bool:
    """Serve a leaf of the new authority; the old one stays in the bundle for a day. Return False when there is none."""
    at = now or datetime.now(UTC)
    with _alone(folder) as tls:
        if not (tls / _NEXT).exists():
            return False
        (tls / _CA).replace(tls / _OLD)
        os.utime(tls / _OLD, (at.timestamp(), at.timestamp()))
        (tls / _NEXT_KEY).replace(tls / _CA_KEY)
        (tls / _NEXT).replace(tls / _CA)
        _make_leaf(tls, names, at)
    return True


def state(folder: Path) -> State | None:
    """Return what is served and trusted now; None before the first start."""
    tls = folder / FOLDER
    try:
        leaf = x509.load_pem_x509_certificate((tls / CERTIFICATE).read_bytes())
    except (OSError, ValueError):
        return None
    return State(
        tuple(_names_of(leaf)), leaf.not_valid_after_utc, bundle(folder), _made_at(tls / _NEXT), (tls / _OLD).exists()
    )


def _made_at(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None


def bundle(folder: Path) -> str:
    """Return the PEM of all authorities that clusters should trust; "" without one.

    Sorted, so that the hash that clusters confirm stays when the new authority becomes the present one.
    """
    parts = []
    for name in (_CA, _NEXT, _OLD):
        with suppress(FileNotFoundError):
            parts.append((folder / FOLDER / name).read_text())
    return "".join(sorted(parts))


def names_for(*addresses: str) -> list[str]:
    """Return the names that a leaf is for: those given, and the names of this machine for itself."""
    return list(dict.fromkeys([*(name for name in addresses if name), "localhost", "127.0.0.1", "::1"]))


def reload_server(folder: Path) -> bool:
    """Let the server of the admission port take up the new leaf; return whether there is one."""
    try:
        pid = int((folder / PID).read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False
    if b"config.admission:application" not in command:  # the number is another process's by now
        return False
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGHUP)
        return True
    return False


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Yield the folder of the certificates while no other process changes it."""
    tls = folder / FOLDER
    tls.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (tls / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield tls


def _is_good(tls: Path, names: Collection[str], at: datetime) -> bool:
    """Return whether the leaf is ours, for these names, and young enough."""
    try:
        leaf = x509.load_pem_x509_certificate((tls / CERTIFICATE).read_bytes())
        key = load_pem_private_key((tls / KEY).read_bytes(), None)
        authority = x509.load_pem_x509_certificate((tls / _CA).read_bytes())
        leaf.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 -- whatever is wrong with the files, new ones help
        return False
    age = at - leaf.not_valid_before_utc
    is_young = timedelta(0) <= age < LEAF_RENEWED_AFTER
    return is_young and key.public_key() == leaf.public_key() and set(names) <= set(_names_of(leaf))


def _names_of(leaf: x509.Certificate) -> list[str]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def _make_authority(tls: Path, name: str, key_name: str, at: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Gravingdock admission {at:%Y-%m-%d %H:%M:%S}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _BACKDATED)
        .not_valid_after(at + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(tls / key_name, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _write(tls / name, certificate.public_bytes(Encoding.PEM))


def _make_leaf(tls: Path, names: Sequence[str], at: datetime) -> None:
    authority = x509.load_pem_x509_certificate((tls / _CA).read_bytes())
    signer = load_pem_private_key((tls / _CA_KEY).read_bytes(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("The key of the authority is no EC key.")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gravingdock-admission")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _BACKDATED)
        .not_valid_after(at + LEAF_LIFE)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    _write(tls / KEY, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _write(tls / CERTIFICATE, certificate.public_bytes(Encoding.PEM))


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=is_authority, crl_sign=is_authority, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read: completely, or not at all."""
    draft = path.with_name(f".{path.name}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
