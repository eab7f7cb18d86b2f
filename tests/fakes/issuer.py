"""An OpenID Connect issuer on 127.0.0.1: discovery and keys, and the identity tokens that it signs."""

from __future__ import annotations

import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm


class Issuer:
    """A running issuer with an RSA and an EC key; stop it at the end."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.asked: list[str] = []
        self.extra_keys: list[dict[str, Any]] = []
        self.hidden: set[str] = set()  # ids of keys that the list leaves out
        self.status = 200
        self.document: dict[str, Any] = {}  # replaces entries of the discovery document
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                body = json.dumps(outer.answer(self.path)).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, path: str) -> dict[str, Any]:
        """Return the document at a path."""
        if path.endswith("/openid-configuration"):
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.document}
        keys = [
            {**RSAAlgorithm.to_jwk(self.rsa.public_key(), as_dict=True), "kid": "rsa", "use": "sig"},
            {**ECAlgorithm.to_jwk(self.ec.public_key(), as_dict=True), "kid": "ec", "use": "sig", "alg": "ES256"},
            *self.extra_keys,
        ]
        return {"keys": [key for key in keys if key["kid"] not in self.hidden]}

    def claims(self, **more: Any) -> dict[str, Any]:
        """Return the claims of a job of acme/shop; None leaves one out."""
        now = int(time.time())
        whole = {
            "iss": self.url, "aud": "http://localhost", "sub": "repo:acme/shop:ref:refs/heads/main",
            "repository": "acme/shop", "ref": "refs/heads/main", "iat": now, "exp": now + 300,
            "jti": str(uuid.uuid4()), **more,
        }  # fmt: skip
        return {name: value for name, value in whole.items() if value is not None}

    def token(self, *, by: str = "rsa", key: Any = None, headers: dict[str, Any] | None = None, **more: Any) -> str:
        """Return a signed identity token."""
        algorithm = {"rsa": "RS256", "ec": "ES256"}[by]
        signer = key or {"rsa": self.rsa, "ec": self.ec}[by]
        return jwt.encode(self.claims(**more), signer, algorithm=algorithm, headers={"kid": by, **(headers or {})})

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
