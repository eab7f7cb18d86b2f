"""Names of images, repositories and numbered objects, as people write them."""

from __future__ import annotations

import re
from typing import Final

from lifecycle.cli import client
from lifecycle.cli.client import Api, CommandFailed

_REPOSITORY: Final = re.compile(r"[a-z0-9]+([._/-]+[a-z0-9]+)*")
_TAG: Final = re.compile(r"\w[\w.-]{0,127}")


def digest_of(text: str, api: Api) -> str:
    """Return the digest of `sha256:...`, `repository@digest`, `repository:tag`, or `repository` (its tag latest).

    Raises CommandFailed if the text is none of these, or no image has this name.
    """
    repository, tag, digest = parts_of(text)
    return digest or _digest_tagged(repository, tag or "latest", api)


def subject_of(text: str, api: Api) -> tuple[str, str]:
    """Return (repository, digest) of a name that has a repository. The digest is "" for a repository alone.

    Raises CommandFailed as `digest_of` does.
    """
    repository, tag, digest = parts_of(text)
    if not repository:
        raise CommandFailed("Name the repository too: REPOSITORY@sha256:...", client.EXIT_USAGE)
    return repository, digest or (_digest_tagged(repository, tag, api) if tag else "")


def parts_of(text: str) -> tuple[str, str, str]:
    """Return (repository, tag, digest), each "" if the text has none; raises CommandFailed (usage) for other texts."""
    if text.startswith(("sha256:", "sha512:")):
        return "", "", _checked_digest(text)
    repository, at, digest = text.partition("@")
    if at:
        tag, digest = "", _checked_digest(digest)
        repository = repository.rpartition(":")[0] if ":" in repository.rpartition("/")[2] else repository
    else:
        repository, _, tag = text.rpartition(":") if ":" in text.rpartition("/")[2] else (text, "", "")
    if not _REPOSITORY.fullmatch(repository) or (tag and not _TAG.fullmatch(tag)) or text.endswith(":"):
        raise CommandFailed("Name an image as REPOSITORY:TAG or sha256:...", client.EXIT_USAGE)
    return repository, tag, digest


def number_of(text: str, prefix: str, what: str) -> str:
    """Return the number in `A-12` or `12`; raises CommandFailed (usage) for other texts. `what`: "an alert"."""
    number = text.upper().removeprefix(prefix)
    if not number.isascii() or not number.isdigit():
        raise CommandFailed(f"Name {what} by its number, with or without {prefix}.", client.EXIT_USAGE)
    return number


def repository_id(name: str, api: Api) -> int:
    """Return the number of a repository; raises CommandFailed if there is none that the user can see."""
    row = next(api.rows("repositories/", most=1, name=name), None)
    if row is None:
        raise CommandFailed(f"No repository {name}, or you don't have access.")
    return int(row["id"])


def _digest_tagged(repository: str, tag: str, api: Api) -> str:
    image = next(api.rows("images/", most=1, repository=repository, tag=tag), None)
    if image is None:
        raise CommandFailed(f"No image {repository}:{tag}, or you don't have access.")
    return str(image["digest"])


def _checked_digest(text: str) -> str:
    name, _, value = text.partition(":")
    if name not in {"sha256", "sha512"} or not value or set(value) - set("0123456789abcdef"):
        raise CommandFailed("Invalid digest. A digest looks like sha256:9f86d0...", client.EXIT_USAGE)
    return text
