"""Signing keys outside the database, and the change from one key to the next."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from django.core.management import call_command

from accounts.models import User
from config import env
from lifecycle.core.errors import Conflict, Malformed, NotPermitted
from lifecycle.promotion.signing import TECHNICAL_CODES
from lifecycle.signatures.making import public_pem
from lifecycle.signatures.types import SignatureRefused
from lifecycle.trust import signing
from lifecycle.trust.models import SigningKey
from lifecycle.trust.signers import SignerRefused, SignerUnavailable, signer_at
from tests.factories import oci
from tests.factories.signatures import new_key
from tests.fakes.registry import InMemoryRegistry
from tests.integration.trust.test_signing import ALL, signed, verified

SOFTHSM = next(
    (path for path in ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so") if Path(path).exists()),
    "",
)
# Written by `cosign generate-key-pair` v3.1.3 with the password "dock-side".
COSIGN_KEY = Path(__file__).parents[2] / "data" / "signatures" / "cosign.key"
COSIGN_PUBLIC = COSIGN_KEY.with_suffix(".pub")


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("admin", password="dock-side-pass")


def pem_of(key: Any, password: bytes = b"") -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def signs_an_image(row: SigningKey) -> bool:
    """Return whether everything that the key attaches to an image verifies with its stored public key."""
    client, item = InMemoryRegistry(), oci.image("app")
    oci.push(client, "live/shop/api", item, "1")
    assert signed(client, "live/shop/api", item, row) == 4
    return verified(client, "live/shop/api", item, row.public_key) == ALL


def test_a_key_in_a_variable_signs_and_a_replaced_one_is_noticed(admin: User, settings: Any) -> None:
    key = new_key()
    settings.SIGNING_KEY_VALUES = {}
    with pytest.raises(SignatureRefused, match="SIGNING_KEY_RELEASE_2026 is not set"):
        signing.register_key("release-2026", "env:", actor=admin)
    settings.SIGNING_KEY_VALUES = {
        "SIGNING_KEY_RELEASE_2026": pem_of(key, b"dock"), "SIGNING_KEY_RELEASE_2026_PASSWORD": "dock",
    }  # fmt: skip
    row = signing.register_key("release-2026", "env:", actor=admin)
    assert (row.public_key, bytes(row.private_sealed)) == (public_pem(key.public_key()), b"")
    assert signs_an_image(row)
    settings.SIGNING_KEY_VALUES = {"SIGNING_KEY_RELEASE_2026": pem_of(new_key())}
    with pytest.raises(SignerRefused, match="another key than release-2026"):
        signs_an_image(row)


def test_the_secrets_of_keys_come_from_variables_and_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.pem").write_text("PEM\n")
    monkeypatch.setenv("SIGNING_KEY_RELEASE_FILE", str(tmp_path / "key.pem"))
    monkeypatch.setenv("SIGNING_KEY_PASSWORD", "dock")
    assert env.beginning_with("SIGNING_KEY_") == {"SIGNING_KEY_RELEASE": "PEM", "SIGNING_KEY_PASSWORD": "dock"}
    monkeypatch.setenv("SIGNING_KEY_RELEASE_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(env.BadSetting, match="SIGNING_KEY_RELEASE_FILE"):
        env.beginning_with("SIGNING_KEY_")


def test_a_key_file_of_cosign_signs_with_its_password(admin: User, settings: Any) -> None:
    settings.SIGNING_KEY_VALUES = {"SIGNING_KEY_PASSWORD": "wrong"}
    with pytest.raises(SignatureRefused, match="password"):
        signing.register_key("release", f"file:{COSIGN_KEY}", actor=admin)
    settings.SIGNING_KEY_VALUES = {"SIGNING_KEY_PASSWORD": "dock-side"}
    with pytest.raises(SignerUnavailable, match="No such file"):
        signing.register_key("release", f"file:{COSIGN_KEY}.old", actor=admin)
    row = signing.register_key("release", f"file:{COSIGN_KEY}", actor=admin)
    assert row.public_key.split() == COSIGN_PUBLIC.read_text().split()
    assert signs_an_image(row)


def test_a_key_of_cosign_with_an_unusual_cost_is_refused() -> None:
    from lifecycle.signatures.cosign_keys import decrypt, is_cosign_key

    lines = COSIGN_KEY.read_text().split("\n")
    value = json.loads(base64.b64decode("".join(lines[1:-2])))
    value["kdf"]["params"]["N"] = 2**30
    body = base64.b64encode(json.dumps(value).encode()).decode()
    pem = f"{lines[0]}\n{body}\n{lines[-2]}\n".encode()
    assert is_cosign_key(pem)
    with pytest.raises(SignatureRefused, match="unusual cost"):
        decrypt(pem, "dock-side")


@pytest.fixture
def token(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a SoftHSM token "dock" with the PIN 4711 and a P-256 key of the id 2; return the library."""
    if not Path(SOFTHSM).exists():
        pytest.skip("softhsm2 is not installed")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\nlog.level = ERROR\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    (tmp_path / "key.pem").write_text(pem_of(new_key()))
    made = ["--init-token", "--free", "--label", "dock", "--so-pin", "1234", "--pin", "4711"]
    imported = ["--import", str(tmp_path / "key.pem"), "--token", "dock", "--label", "k", "--id", "02", "--pin", "4711"]
    for arguments in (made, imported):
        subprocess.run(["softhsm2-util", *arguments], check=True, capture_output=True)
    settings.PYKCS11LIB = SOFTHSM
    return SOFTHSM


def test_a_key_in_a_pkcs11_token_signs(admin: User, token: str, settings: Any) -> None:
    settings.SIGNING_KEY_VALUES = {"SIGNING_KEY_PASSWORD": "0000"}
    with pytest.raises(SignerRefused, match="PinIncorrect"):  # public keys need no PIN, but a test message does
        signing.register_key("release", "hsm:2?label=dock", actor=admin)
    settings.SIGNING_KEY_VALUES = {"SIGNING_KEY_PASSWORD": "4711"}
    row = signing.register_key("release", "hsm:2?label=dock", actor=admin)
    assert signs_an_image(row)
    settings.SIGNING_KEY_VALUES = {"SIGNING_KEY_PASSWORD": "0000"}
    with pytest.raises(SignerRefused, match="PinIncorrect"):  # another try could lock the token
        signs_an_image(row)
    settings.SIGNING_KEY_VALUES = {"SIGNING_KEY_PASSWORD": "4711"}
    with pytest.raises(SignerUnavailable, match="could not find"):
        signer_at("hsm:3?label=dock", "other")
    with pytest.raises(SignerUnavailable, match="No PKCS#11 token"):
        signer_at("hsm:2?label=harbour", "other")


class _Vault(BaseHTTPRequestHandler):
    """The two calls of Vault's transit engine that we use, as its documentation describes them."""

    key = ec.generate_private_key(ec.SECP256R1())
    may_sign, padding = True, ""

    def do_GET(self) -> None:
        key = {"public_key": public_pem(self.key.public_key())}
        self._answer({"type": "ecdsa-p256", "latest_version": 3, "keys": {"3": key}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (body["hash_algorithm"], body["marshaling_algorithm"], body["key_version"]) == ("sha2-256", "asn1", 3)
        signature = self.key.sign(base64.b64decode(body["input"]), ec.ECDSA(hashes.SHA256()))
        self._answer({"signature": f"vault:v3:{base64.b64encode(signature).decode()}"})

    def _answer(self, data: dict[str, Any]) -> None:
        is_known = self.headers["X-Vault-Token"] == "s.dock" and self.path.split("/")[2] == "transit"
        is_known = is_known and (self.may_sign or self.command == "GET")
        content = json.dumps({"data": data, "padding": self.padding}).encode()
        self.send_response(200 if is_known else 403)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def vault(settings: Any) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Vault) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        settings.VAULT_ADDR = f"http://127.0.0.1:{server.server_port}"
        settings.OUTBOUND_ALLOW = [f"127.0.0.1:{server.server_port}"]
        yield settings.VAULT_ADDR
        server.shutdown()


def test_a_key_in_vault_signs(admin: User, vault: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.VAULT_TOKEN = "s.wrong"
    with pytest.raises(SignatureRefused, match="403"):
        signing.register_key("release", "hashivault:dock", actor=admin)
    settings.VAULT_TOKEN = "s.dock"
    row = signing.register_key("release", "hashivault:dock", actor=admin)
    assert signs_an_image(row)
    signer = signer_at("hashivault:dock", "release")
    monkeypatch.setattr(_Vault, "key", new_key())
    with pytest.raises(SignerRefused, match="by another key"):
        signer.sign(b"content")


def test_a_key_in_vault_that_does_not_sign_is_an_error_of_the_key(
    admin: User, vault: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the promotion that waits for the signature can run again."""
    assert {SignerRefused.code, SignerUnavailable.code} <= TECHNICAL_CODES
    settings.VAULT_TOKEN = "s.dock"
    monkeypatch.setattr(_Vault, "may_sign", False)
    with pytest.raises(SignerRefused, match=r"does not sign.*403"):  # its policy has only `read`
        signing.register_key("release", "hashivault:dock", actor=admin)
    monkeypatch.setattr(_Vault, "may_sign", True)
    row = signing.register_key("release", "hashivault:dock", actor=admin)
    signer = signer_at("hashivault:dock", "release")
    monkeypatch.setattr(_Vault, "may_sign", False)
    with pytest.raises(SignerRefused, match=r"does not sign.*403"):
        signs_an_image(row)
    monkeypatch.setattr(_Vault, "may_sign", True)
    monkeypatch.setattr(_Vault, "padding", "x" * 2**20)
    with pytest.raises(SignerUnavailable, match="as expected"):
        signer.sign(b"content")
    settings.OUTBOUND_ALLOW = []
    with pytest.raises(SignerRefused, match="OUTBOUND_ALLOW"):
        signer.sign(b"content")


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("ssh:key", "begins with env:, file:"),
        ("hsm:two", "key id as a number"),
        ("azurekms://elsewhere.example/keys/a/b", "vault.azure.net"),
        ("awskms:1234", r"securesystemslib\[awskms\]"),
        ("gcpkms:projects/p", r"securesystemslib\[gcpkms\]"),
        ("azurekms://dock.vault.azure.net/keys/a/b", r"securesystemslib\[azurekms\]"),
        ("hashivault:../sys", "name of the key"),
        ("hashivault:dock", "VAULT_ADDR"),
    ],
)
def test_a_uri_that_cannot_be_used_says_what_to_do(db: None, uri: str, why: str) -> None:
    with pytest.raises(SignatureRefused, match=why):
        signer_at(uri, "release")


def test_two_keys_are_active_at_most_and_both_sign(admin: User) -> None:
    for name in ("old", "new"):
        signing.create_key(name, actor=admin)
    with pytest.raises(Conflict, match="new and old are active already"):
        signing.create_key("third", actor=admin)
    signing.retire_key("old", actor=admin)
    signing.create_key("third", actor=admin)
    assert [row.name for row in signing.active_keys()] == ["third", "new"]
    for name in ("Release", "a--b", "db-password"):
        with pytest.raises(Malformed):
            signing.create_key(name, actor=admin)
    with pytest.raises(NotPermitted):
        signing.register_key("mine", "env:", actor=User.objects.create(username="kim"))


def test_the_command_registers_a_key_at_its_place(
    admin: User, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.SIGNING_KEY_VALUES = {"SIGNING_KEY_PASSWORD": "dock-side"}
    call_command("signing_key", "create", "release", actor="admin", uri=f"file:{COSIGN_KEY}")
    call_command("signing_key", "list")
    listed = capsys.readouterr().out
    assert f"active file:{COSIGN_KEY}" in listed
    assert "PRIVATE" not in listed
