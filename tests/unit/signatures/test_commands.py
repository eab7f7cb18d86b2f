"""`manage.py verify_bundle` and `verify_attestation`: exit codes and reasons, without database and network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from lifecycle.core.types import Digest
from tests.factories.signatures import IDENTITY, ISSUER, Sigstore, envelope, key_bundle, new_key, pem_of, statement


def test_verify_bundle_takes_a_key_and_a_file_or_its_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = new_key()
    (tmp_path / "key.pub").write_text(pem_of(key))
    (tmp_path / "a.txt").write_bytes(b"content")
    (tmp_path / "bundle.json").write_text(json.dumps(key_bundle(key, content=b"content")))
    arguments = ["--bundle", str(tmp_path / "bundle.json"), "--key", str(tmp_path / "key.pub")]
    for target in (str(tmp_path / "a.txt"), Digest.of(b"content").text):
        call_command("verify_bundle", *arguments, target)
    assert capsys.readouterr().out.count("Verified: signed by key sha256:") == 2
    with pytest.raises(CommandError, match="other content"):
        call_command("verify_bundle", *arguments, Digest.of(b"other").text)
    with pytest.raises(CommandError, match="No such file"):
        call_command("verify_bundle", *arguments, str(tmp_path / "absent"))
    with pytest.raises(CommandError, match="either --key, or"):
        call_command("verify_bundle", *arguments[:2], str(tmp_path / "a.txt"))


def test_verify_bundle_takes_an_identity_exactly(tmp_path: Path) -> None:
    sigstore = Sigstore()
    (tmp_path / "root.json").write_text(sigstore.trusted_root())
    (tmp_path / "bundle.json").write_text(json.dumps(sigstore.bundle(b"content")))
    (tmp_path / "a.txt").write_bytes(b"content")
    bundle = ["--bundle", str(tmp_path / "bundle.json"), "--trusted-root", str(tmp_path / "root.json")]

    def verify(identity: str, issuer: str) -> None:
        signer = ["--certificate-identity", identity, "--certificate-oidc-issuer", issuer]
        call_command("verify_bundle", *bundle, *signer, str(tmp_path / "a.txt"))

    verify(IDENTITY, ISSUER)
    for identity, issuer in (
        (IDENTITY + "0", ISSUER),
        (IDENTITY, ISSUER + "0"),
        (IDENTITY[:-1], ISSUER),
        ("**", ISSUER),
    ):
        with pytest.raises(CommandError, match="The signer is"):
            verify(identity, issuer)


def test_verify_attestation_takes_several_envelopes_and_needs_one_that_fits(tmp_path: Path) -> None:
    key, digest = new_key(), Digest.of(b"image").text
    lines = [envelope(new_key(), statement(digest)), envelope(key, statement(digest, "https://example.com/p/v2"))]
    (tmp_path / "envelopes.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    (tmp_path / "key.pub").write_text(pem_of(key))
    arguments = [
        "--envelope",
        str(tmp_path / "envelopes.jsonl"),
        "--key",
        str(tmp_path / "key.pub"),
        "--subject",
        digest,
    ]
    call_command("verify_attestation", *arguments, "--predicate-type", "https://example.com/p/v2")
    with pytest.raises(CommandError, match="Not verified"):
        call_command("verify_attestation", *arguments, "--predicate-type", "https://example.com/p/v1")
