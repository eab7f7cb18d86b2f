"""What isolation checks need of images, and the check of manifests that somebody brings."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from accounts.models import User
from lifecycle.authority.access import environment_for, image_for
from lifecycle.authority.queries import images_visible_to
from lifecycle.core.errors import Malformed, NotFound
from lifecycle.environments.models import Environment
from lifecycle.evidence.contents import ImageContents, contents_of
from lifecycle.policies.queries import effective_rules
from lifecycle.policy.isolation import CHECKS, breaks, checks_of, judge, overall
from lifecycle.policy.isolation_pod import root_in_image
from lifecycle.policy.isolation_reading import Manifests, PodDocument
from lifecycle.policy.isolation_types import ImageConfig, Profile, Result, Verdict
from lifecycle.policy.rulesets import Point, isolation_modes
from lifecycle.registry.models import Image
from lifecycle.registry.platforms import trees_of

PROFILES: Final = ("baseline", "restricted", "all")
CONTAINERS_MAX: Final = 1000  # of all pods of one check
_DIGEST: Final = re.compile(r"@(sha256:[0-9a-f]{64})\Z")
_SETUID: Final = frozenset({"setuid", "setgid"})


@dataclass(frozen=True, slots=True)
class JudgedPod:
    """The verdicts about one pod of a text."""

    pod: PodDocument
    verdicts: tuple[Verdict, ...]
    keeps: Mapping[str, bool]  # by Pod Security Standard: whether the API server lets the pod in at this level

    @property
    def result(self) -> Result:
        return overall(self.verdicts)

    @property
    def is_blocked(self) -> bool:
        return any(verdict.blocks for verdict in self.verdicts)


def image_config_of(config: Any, contents: ImageContents | None) -> ImageConfig:
    """Return the facts of one platform manifest, from its stored configuration and the check of its files."""
    inner = config.get("config") if isinstance(config, dict) else None
    known = inner if isinstance(inner, dict) else {} if config else None
    return ImageConfig.of(known, has_setuid=_has_setuid(contents))


def _has_setuid(contents: ImageContents | None) -> bool | None:
    if contents is None or not contents.is_checked:
        return None
    if any(contents.counts.get(kind) for kind in _SETUID):
        return True
    return None if contents.problem else False


def worst(configs: Iterable[ImageConfig]) -> ImageConfig:
    """Return one configuration that fails whatever one of these fails, and is unknown where one is unknown."""
    found = list(configs)
    if not found:
        return ImageConfig()
    users = [one.user for one in found]
    names = [one.secret_names for one in found]
    return ImageConfig(
        user=min((user for user in users if user is not None), key=_rank_of_user) if None not in users else None,
        secret_names=tuple(sorted({name for one in names for name in one or ()})) if any(names) or None not in names
        else None,
        exposes_ssh=_any(one.exposes_ssh for one in found),
        has_healthcheck=_all(one.has_healthcheck for one in found),
        has_setuid=_any(one.has_setuid for one in found),
    )  # fmt: skip


def _rank_of_user(user: str) -> bool:
    return root_in_image(user) == ""


def _any(values: Iterable[bool | None]) -> bool | None:
    found = list(values)
    return True if True in found else None if None in found else False


def _all(values: Iterable[bool | None]) -> bool | None:
    found = list(values)
    return False if False in found else None if None in found else True


def image_configs(images: Collection[Image]) -> dict[int, ImageConfig]:
    """Return the facts of these images and indexes, by id. A fixed number of queries for any number of images."""
    trees = trees_of(images)
    below = {pk for tree in trees.values() for _, pk in tree.manifests}
    configs = dict(Image.objects.filter(pk__in=below).values_list("pk", "config"))
    contents = contents_of(below)
    facts = {pk: image_config_of(configs.get(pk), contents.get(pk)) for pk in below}
    return {
        pk: ImageConfig() if tree.is_cut else worst(facts[child] for _, child in tree.manifests)
        for pk, tree in trees.items()
    }


def judge_manifests(
    actor: User, manifests: Manifests, *, digest: str = "", profile: str = "restricted", environment: str = ""
) -> list[JudgedPod]:
    """Return the verdicts about each pod, of the checks of a profile. Nothing is stored.

    What `actor` can see of images counts: those that containers name by digest, and `digest` for the main container
    that names none. With `environment` ("shop/production"), each verdict has the mode of its rules at admission.
    Raises Malformed, NotFound.
    """
    if not manifests.pods:
        raise Malformed("There is no pod in it. Send a Pod, a controller such as a Deployment, or a pod spec.")
    modes = _modes(actor, environment) if environment else {}
    place = image_for(actor, digest) if digest else None
    references = [_references(pod, with_digest=place is not None) for pod in manifests.pods]
    if sum(map(len, references)) > CONTAINERS_MAX:
        raise Malformed(f"There are more than {CONTAINERS_MAX} containers. Check fewer objects at a time.")
    configs = _configs(actor, {text for found in references for text in found}, place)
    wanted = checks_of(profile)
    judged = []
    for pod in manifests.pods:
        verdicts = judge(pod.spec, configs, dict.fromkeys(CHECKS, "observe"), pod.context)
        keeps = {one.value: not breaks(verdicts, one) for one in Profile}
        shown = tuple(
            replace(_at(one, profile), mode=modes.get(one.check, "off") if environment else "observe")
            for one in verdicts
            if one.check in wanted
        )
        judged.append(JudgedPod(pod, shown, keeps))
    return judged


def _at(verdict: Verdict, profile: str) -> Verdict:
    """Return the verdict at a profile: what only `restricted` objects to is fine at `baseline`."""
    if profile != Profile.BASELINE or verdict.profile is not Profile.RESTRICTED:
        return verdict
    return replace(verdict, result=Result.PASS, profile=None, fix="")


def _modes(actor: User, environment: str) -> dict[str, str]:
    team, _, slug = environment.partition("/")
    if not slug:
        raise NotFound("Name the environment with its team, such as shop/production.")
    place: Environment = environment_for(actor, team=team, slug=slug)
    return isolation_modes(effective_rules(place.team, place).rules, Point.ADMISSION)


def _references(pod: PodDocument, *, with_digest: bool) -> list[str]:
    """Return what the containers of a pod have as image. With `with_digest`, just one main container may lack one."""
    found: list[str] = []
    open_places = 0
    for key in ("initContainers", "containers", "ephemeralContainers"):
        containers = pod.spec.get(key)
        for one in containers if isinstance(containers, list) else ():
            text = str(one.get("image") or "") if isinstance(one, Mapping) else ""
            found.append(text)
            open_places += key == "containers" and not _DIGEST.search(text)
    if with_digest and open_places > 1:
        raise Malformed(
            f"{pod.kind} {pod.name or 'without name'} has {open_places} containers without a digest. "
            "Write the digest into each image, such as shop/api@sha256:..., and leave out the digest of the check."
        )
    return found


def _configs(actor: User, references: Collection[str], place: Image | None) -> dict[str, ImageConfig]:
    digests = {text: match[1] for text in references if (match := _DIGEST.search(text))}
    rows = list(images_visible_to(actor).filter(digest__in=set(digests.values()))) if digests else []
    known = image_configs([*rows, *([place] if place else [])])
    by_digest = {row.digest: known[row.pk] for row in rows}
    found = {text: by_digest[digest] for text, digest in digests.items() if digest in by_digest}
    if place is not None:
        found |= {text: known[place.pk] for text in references if text not in digests}
    return found
