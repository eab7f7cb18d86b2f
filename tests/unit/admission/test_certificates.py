"""The certificates of the admission port: renewed in time, and a change of authority that nobody notices."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from lifecycle.admission import certificates

NAMES = certificates.names_for("admission.example.com")
NOW = datetime.now(UTC)


def leaf(folder):
    return x509.load_pem_x509_certificate((folder / "tls" / certificates.CERTIFICATE).read_bytes())


def authorities(folder):
    return x509.load_pem_x509_certificates(certificates.bundle(folder).encode())


def test_leaf_is_made_once_and_renewed_at_60_of_90_days(tmp_path):
    assert certificates.ensure(tmp_path, NAMES, now=NOW)
    first = leaf(tmp_path)
    assert first.not_valid_after_utc - NOW.replace(microsecond=0) == timedelta(days=90)
    assert set(certificates.state(tmp_path).names) == {"admission.example.com", "localhost", "127.0.0.1", "::1"}
    assert not certificates.ensure(tmp_path, NAMES, now=NOW + timedelta(days=59))
    assert certificates.ensure(tmp_path, NAMES, now=NOW + timedelta(days=61))
    assert leaf(tmp_path).serial_number != first.serial_number
    assert len(authorities(tmp_path)) == 1
    assert [path.stat().st_mode & 0o077 for path in (tmp_path / "tls").glob("*.pem")] == [0, 0, 0, 0]


@pytest.mark.parametrize("spoil", ["names", "file", "key", "future"])
def test_leaf_is_renewed_when_it_does_not_fit(tmp_path, spoil):
    certificates.ensure(tmp_path, NAMES, now=NOW + timedelta(days=300 if spoil == "future" else 0))
    if spoil == "file":
        (tmp_path / "tls" / certificates.CERTIFICATE).write_text("garbage")
    if spoil == "key":
        (tmp_path / "tls" / certificates.KEY).unlink()
    assert certificates.ensure(tmp_path, [*NAMES, "other"] if spoil == "names" else NAMES, now=NOW)
    assert not certificates.ensure(tmp_path, NAMES, now=NOW)


def test_new_authority_is_trusted_before_it_is_used_and_the_old_one_a_day_longer(tmp_path):
    certificates.ensure(tmp_path, NAMES, now=NOW)
    before = leaf(tmp_path).serial_number
    (old,) = authorities(tmp_path)
    certificates.rotate(tmp_path, now=NOW)
    certificates.rotate(tmp_path, now=NOW)  # twice is safe
    both = authorities(tmp_path)
    assert (len(both), leaf(tmp_path).serial_number, certificates.state(tmp_path).is_rotating) == (2, before, True)
    assert certificates.use_new_authority(tmp_path, NAMES, now=NOW)
    assert not certificates.use_new_authority(tmp_path, NAMES, now=NOW)
    new = next(one for one in both if one != old)
    leaf(tmp_path).verify_directly_issued_by(new)
    assert {one.serial_number for one in authorities(tmp_path)} == {one.serial_number for one in both}
    certificates.ensure(tmp_path, NAMES, now=NOW + timedelta(hours=23))
    assert certificates.state(tmp_path).keeps_old
    certificates.ensure(tmp_path, NAMES, now=NOW + timedelta(hours=25))
    assert [one.serial_number for one in authorities(tmp_path)] == [new.serial_number]


def test_python_serves_with_the_certificate(tmp_path):
    certificates.ensure(tmp_path, NAMES)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls" / certificates.CERTIFICATE, tmp_path / "tls" / certificates.KEY)
    assert context.cert_store_stats()["x509"] == 0


def test_no_other_process_is_signalled(tmp_path):
    assert not certificates.reload_server(tmp_path)
    (tmp_path / certificates.PID).write_text("1")
    assert not certificates.reload_server(tmp_path)
