"""Build as the embedded builder does, push as a person does: with skopeo, a user name and a token."""

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
from lifecycle.rebuild.builders import buildah, settings_files
from lifecycle.rebuild.rebase import BASE_DIGEST, BASE_NAME
from lifecycle.rebuild.types import BuildRequest

PUSH_TIMEOUT_S: Final = 180
LOG_LINES_SHOWN: Final = 12
_TOOLS: Final = ("buildah", "mmdebstrap", "skopeo")


@dataclass(frozen=True, slots=True)
class Built:
    """An image that is not pushed yet: an OCI layout, and the digest of its one manifest."""

    product: Product
    layout: Path
    digest: str

    @property
    def pinned(self) -> str:
        """`repository@digest`, as a build takes its base."""
        return f"{self.product.repository}@{self.digest}"


def check_tools() -> None:
    """Raise DemonstrationFailed when this machine or this account cannot build."""
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        raise DemonstrationFailed(f"{', '.join(missing)} is not installed here. Run: make system")
    if os.geteuid() != 0:
        raise DemonstrationFailed(
            "It builds images, and the embedded builder needs root for its mount and process namespaces. Start "
            "Gravingdock as root: make down, then sudo make up. Everything but rebuilding works as you started it."
        )
    if absent := [name for name, uris in settings_files.mirrors().items() if not uris]:
        raise DemonstrationFailed(
            f"This machine's apt sources name no mirror of {absent[0]} for {base_images.RELEASE}, which the base "
            "image is built from. Add one below /etc/apt/sources.list.d, then run: make demo"
        )


class Builder:
    """Builds and pushes in one scratch folder; safe to use from several threads."""

    def __init__(self, scratch: Path, client: RegistryClient, *, host: str, is_https: bool, teller: Teller) -> None:
        self._scratch, self._client, self._teller = scratch, client, teller
        self._host, self._is_https = host, is_https

    def make_root(self, name: str, *, with_security: bool) -> Path:
        """Make Debian's root file system in a folder of its own, and return the folder: the context of its image."""
        folder = self._scratch / name
        folder.mkdir()
        log: deque[str] = deque(maxlen=LOG_LINES_SHOWN)
        try:
            base_images.make_root(folder, with_security=with_security, log=log.append)
        except LifecycleError as error:
            raise self._failed(f"Debian's root file system could not be made: {error.message}", log) from error
        return folder

    def build(
        self, product: Product, *, name: str, bases: Mapping[str, str] | None = None, context: Path | None = None
    ) -> Built:
        """Build one image on the given bases; raises DemonstrationFailed with the end of its log."""
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
        for folder in (work, context):  # unpacked bases are most of it
            shutil.rmtree(folder)
        index = json.loads((kept / "index.json").read_text())
        return Built(product, kept, index["manifests"][0]["digest"])

    def _base_annotations(self, bases: Mapping[str, str]) -> dict[str, str]:
        """Return what image-spec's annotations.md says of the base, as the rebuild engine writes it too."""
        for pinned in bases.values():
            name, _, digest = pinned.partition("@")
            return {BASE_NAME: f"{self._host}/{name}", BASE_DIGEST: digest}
        return {}

    def push(self, built: Built, account: Account, repository: str = "") -> None:
        """Push with skopeo and the account's registry credential; raises DemonstrationFailed with its last words."""
        problem = self._copy(built, account, repository or built.product.repository)
        if problem:
            raise DemonstrationFailed(f"{built.product.repository} could not be pushed: {problem}")

    def refusal(self, built: Built, account: Account, repository: str) -> str:
        """Push where it must not work, and return the refusal; raises DemonstrationFailed when it was let in."""
        problem = self._copy(built, account, repository)
        if not problem:
            raise DemonstrationFailed(f"{account.username} could push to {repository}, past every approval.")
        if "denied" not in problem and "unauthorized" not in problem:
            raise DemonstrationFailed(f"The push to {repository} failed, but was not refused: {problem}")
        return problem

    def _copy(self, built: Built, account: Account, repository: str) -> str:
        """Return what skopeo said last when it failed, else nothing."""
        credential = base64.b64encode(f"{account.username}:{account.registry_token}".encode()).decode()
        # In a file, not in the arguments, which every process of the machine can read.
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
            return f"no end within {PUSH_TIMEOUT_S} s"
        if done.returncode == 0:
            return ""
        # One line of logfmt, its line ends escaped: what the registry itself said stands after "errors:".
        lines = (done.stderr or done.stdout).strip().replace("\\n", "\n").splitlines()
        said = [line.strip(' "') for line in lines]
        said = said[next((number + 1 for number, line in enumerate(said) if line.endswith("errors:")), 0) :]
        return "; ".join(filter(None, said)) or f"skopeo ended with {done.returncode}"

    def _failed(self, sentence: str, log: deque[str]) -> DemonstrationFailed:
        self._teller.check()  # stopped from elsewhere: that is the reason to give, not what it broke here
        return DemonstrationFailed("\n".join([sentence, *(f"    {line}" for line in log)]))
