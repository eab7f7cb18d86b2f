"""Builds images like the embedded builder, and pushes them like a user: with skopeo, a user name and a token."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.embedded.keys import write_private
from lifecycle.core.errors import LifecycleError
from lifecycle.demo.cast import Account
from lifecycle.demo.images import Product
from lifecycle.demo.telling import DemonstrationFailed, Teller
from lifecycle.oci.client import RegistryClient
from lifecycle.rebuild import base_images
from lifecycle.rebuild.builders import box, buildah, settings_files
from lifecycle.rebuild.rebase import BASE_DIGEST, BASE_NAME
from lifecycle.rebuild.types import BuildRequest, NoBuildBox

PUSH_TIMEOUT_S: Final = 180
LOG_LINES_SHOWN: Final = 12
_TOOLS: Final = ("buildah", "mmdebstrap", "skopeo")


@dataclass(frozen=True, slots=True)
class Built:
    """A built image that is not pushed yet: an OCI layout, and the digest of its only manifest."""

    product: Product
    layout: Path
    digest: str

    @property
    def pinned(self) -> str:
        """`repository@digest`, the form of a base in a build request."""
        return f"{self.product.repository}@{self.digest}"


def check_tools() -> None:
    """Raise DemonstrationFailed when this machine or this account cannot build images."""
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        raise DemonstrationFailed(f"{', '.join(missing)} is not installed here. Run: make system")
    if os.geteuid() != 0:
        raise DemonstrationFailed(
            "The demonstration builds images, and the embedded builder needs root for mount and process namespaces. "
            "Start Gravingdock as root: make down, then sudo make up. Without root, everything except rebuilds works."
        )
    try:
        box.is_confined()
    except NoBuildBox as refusal:
        raise DemonstrationFailed(refusal.message) from refusal
    if absent := [name for name, uris in settings_files.mirrors().items() if not uris]:
        raise DemonstrationFailed(
            f"The apt sources of this machine contain no mirror of {absent[0]} for {base_images.RELEASE}. The base "
            "image is built from it. Add one in /etc/apt/sources.list.d, then run: make demo"
        )


class Builder:
    """Builds and pushes images in one scratch folder. It is thread-safe."""

    def __init__(self, scratch: Path, client: RegistryClient, *, host: str, is_https: bool, teller: Teller) -> None:
        self._scratch, self._client, self._teller = scratch, client, teller
        self._host, self._is_https = host, is_https

    def make_root(self, name: str, *, with_security: bool) -> Path:
        """Create Debian's root file system in a new folder, and return the folder, which is the build context."""
        folder = self._scratch / name
        folder.mkdir()
        log: deque[str] = deque(maxlen=LOG_LINES_SHOWN)
        try:
            base_images.make_root(folder, with_security=with_security, log=log.append)
        except LifecycleError as error:
            raise self._failed(f"Debian's root file system could not be created: {error.message}", log) from error
        return folder

    def build(
        self, product: Product, *, name: str, bases: Mapping[str, str] | None = None, context: Path | None = None
    ) -> Built:
        """Build one image on the given bases; raises DemonstrationFailed with the end of the log."""
        bases = dict(bases or {})
        work, log = self._scratch / f"build-{name}", deque[str](maxlen=LOG_LINES_SHOWN)
        work.mkdir()
        if context is None:
            context = self._scratch / f"context-{name}"
            context.mkdir()
            for file, content in product.files.items():
                (context / file).write_bytes(content)
        request = BuildRequest(
            containerfile=product.recipe, context=context, build_args={}, bases=bases, repository=product.repository,
            tag=product.tag, annotations=product.labels | self._base_annotations(bases),
        )  # fmt: skip
        try:
            layout = buildah.build_layout(request, self._client, work, log=log.append, check=self._teller.check)
        except LifecycleError as error:
            raise self._failed(f"{product.repository} could not be built: {error.message}", log) from error
        kept = layout.rename(self._scratch / f"image-{name}")
        for folder in (work, context):  # they contain the unpacked bases and are large
            shutil.rmtree(folder)
        index = json.loads((kept / "index.json").read_text())
        return Built(product, kept, index["manifests"][0]["digest"])

    def _base_annotations(self, bases: Mapping[str, str]) -> dict[str, str]:
        """Return the base annotations of the image-spec (annotations.md). The rebuild engine writes the same ones."""
        for pinned in bases.values():
            name, _, digest = pinned.partition("@")
            return {BASE_NAME: f"{self._host}/{name}", BASE_DIGEST: digest}
        return {}

    def push(self, built: Built, account: Account, repository: str = "") -> None:
        """Push with skopeo and the account's registry token; raises DemonstrationFailed with skopeo's last message."""
        problem = self._copy(built, account, repository or built.product.repository)
        if problem:
            raise DemonstrationFailed(f"{built.product.repository} could not be pushed: {problem}")

    def refusal(self, built: Built, account: Account, repository: str) -> str:
        """Push to a repository that must reject it, and return the error; raises DemonstrationFailed otherwise."""
        problem = self._copy(built, account, repository)
        if not problem:
            raise DemonstrationFailed(f"{account.username} could push to {repository} without an approval.")
        if "denied" not in problem and "unauthorized" not in problem:
            raise DemonstrationFailed(f"The push to {repository} failed for another reason than a refusal: {problem}")
        return problem

    def _copy(self, built: Built, account: Account, repository: str) -> str:
        """Push with skopeo; return its error message, or "" on success."""
        credential = base64.b64encode(f"{account.username}:{account.registry_token}".encode()).decode()
        # In a file, because every process of the machine can read the arguments.
        sign_in = self._scratch / f"auth-{account.username}.json"
        write_private(sign_in, json.dumps({"auths": {self._host: {"auth": credential}}}))
        command = [
            "skopeo", "copy", "--quiet", "--preserve-digests", "--dest-authfile", str(sign_in),
            f"--dest-tls-verify={'true' if self._is_https else 'false'}",
            f"oci:{built.layout}:new", f"docker://{self._host}/{repository}:{built.product.tag}",
        ]  # fmt: skip
        environment = settings_files.environment() | {"HOME": str(self._scratch), "TMPDIR": str(self._scratch)}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=PUSH_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"timed out after {PUSH_TIMEOUT_S} s"
        if done.returncode == 0:
            return ""
        # One line of logfmt with escaped line ends. The message of the registry comes after "errors:".
        lines = (done.stderr or done.stdout).strip().replace("\\n", "\n").splitlines()
        messages = [line.strip(' "') for line in lines]
        messages = messages[next((number + 1 for number, line in enumerate(messages) if line.endswith("errors:")), 0) :]
        return "; ".join(filter(None, messages)) or f"skopeo exited with {done.returncode}"

    def _failed(self, sentence: str, log: deque[str]) -> DemonstrationFailed:
        self._teller.check()  # if another thread stopped the run, report that instead
        return DemonstrationFailed("\n".join([sentence, *(f"    {line}" for line in log)]))
