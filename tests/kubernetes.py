"""A real kube-apiserver with etcd and the controllers of workloads, on loopback ports. No kubelet: nothing runs.

`make kubernetes` builds the programs once, outside the clone. Without them, tests that need them are skipped.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from config.embedded import ports

FOLDER: Final = Path(
    os.environ.get("KUBERNETES_BIN")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gravingdock-kubernetes" / "bin"
)
_PROGRAMS: Final = ("etcd", "kube-apiserver", "kube-controller-manager")
_CONTROLLERS: Final = (
    "deployment-controller,replicaset-controller,replicationcontroller-controller,statefulset-controller,"
    "daemonset-controller,job-controller,cronjob-controller,serviceaccount-controller"
)
_TOKEN: Final = "admin-token-of-tests"
_READY_S: Final = 120


class Kubernetes:
    """One API server; `stop` ends it with its database."""

    def __init__(self, home: Path, *, controllers: bool = False) -> None:
        missing = [name for name in _PROGRAMS if not (FOLDER / name).exists()]
        if missing:
            pytest.skip(f"{', '.join(missing)} not in {FOLDER}: run `make kubernetes`, or set KUBERNETES_BIN")
        self.home = home
        self._processes: list[subprocess.Popen[bytes]] = []
        client, peer, self.port = ports.scratch(3)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        accounts = home / "sa.key"
        accounts.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (home / "tokens.csv").write_text(f'{_TOKEN},admin,1,"system:masters"\n')
        etcd = f"http://127.0.0.1:{client}"
        self._start(
            "etcd", f"--data-dir={home / 'etcd'}", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}", "--unsafe-no-fsync",
        )  # fmt: skip
        self._start(
            "kube-apiserver", f"--etcd-servers={etcd}", f"--cert-dir={home / 'certs'}", "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1", f"--secure-port={self.port}", "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-signing-key-file={accounts}",
            f"--service-account-key-file={accounts}", f"--token-auth-file={home / 'tokens.csv'}",
            "--authorization-mode=RBAC", "--allow-privileged=true", "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
        )  # fmt: skip
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # its own certificate, on loopback
        self.http = httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}", verify=context, timeout=30,
            headers={"Authorization": f"Bearer {_TOKEN}"},
        )  # fmt: skip
        self.wait(lambda: self.http.get("/readyz").status_code == 200)
        if controllers:
            self._start_controllers()

    def _start_controllers(self) -> None:
        configuration = self.home / "kubeconfig"
        configuration.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
            "clusters: [{name: x, cluster: {insecure-skip-tls-verify: true,"
            f" server: 'https://127.0.0.1:{self.port}'}}}}]\n"
            f"users: [{{name: x, user: {{token: {_TOKEN}}}}}]\n"
            "contexts: [{name: x, context: {cluster: x, user: x}}]\n"
        )
        self._start(
            "kube-controller-manager", f"--kubeconfig={configuration}", "--use-service-account-credentials=true",
            "--leader-elect=false", "--secure-port=0", f"--controllers={_CONTROLLERS}",
            f"--service-account-private-key-file={self.home / 'sa.key'}",
        )  # fmt: skip

    def _start(self, name: str, *arguments: str) -> None:
        with (self.home / f"{name}.log").open("wb") as log:
            self._processes.append(subprocess.Popen([FOLDER / name, *arguments], stdout=log, stderr=log, cwd=self.home))

    def wait(self, check: Callable[[], Any], seconds: float = _READY_S) -> Any:
        """Return what `check` returns as soon as it is true; errors of connections count as false."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := check():
                    return found
            except httpx.HTTPError:
                pass
            ended = [process.args[0] for process in self._processes if process.poll() is not None]  # type: ignore[index]  # a list
            assert not ended, f"{ended} ended: {self.tail()}"
            assert time.monotonic() < deadline, f"waited {seconds} s: {self.tail()}"
            time.sleep(0.1)

    def tail(self) -> str:
        """Return the ends of the logs."""
        return "\n".join(path.read_text(errors="replace")[-1500:] for path in sorted(self.home.glob("*.log")))

    def send(
        self, method: str, path: str, body: Any = None, *, user: str = "", kind: str = "application/json", **query: str
    ) -> httpx.Response:
        """Send a request, perhaps as another person, who may do everything."""
        headers = {"Content-Type": kind}
        if user:
            headers |= {"Impersonate-User": user, "Impersonate-Group": "people"}
        return self.http.request(method, path, json=body, params=query, headers=headers)

    def stop(self) -> None:
        """End all processes, the database last."""
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.http.close()
