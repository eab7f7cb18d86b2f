"""The one evaluator of policies: gates, pages, the API and the what-if all judge images with these functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lifecycle.environments.models import Environment
from lifecycle.evidence.policy_facts import facts_of_images
from lifecycle.policies import cel
from lifecycle.policies.models import Waiver
from lifecycle.policies.queries import effective_rules, facts_of_waivers, waivers_for
from lifecycle.policies.types import Effective
from lifecycle.policy.facts import ImageFacts
from lifecycle.policy.images import Judged, WaiverFact, judge_image, needs_of
from lifecycle.policy.rulesets import Mode, Point, rules_at
from lifecycle.registry.models import Image, Repository


@dataclass(frozen=True, slots=True)
class ImageVerdict:
    """What the rules say about an image at one point, with the revisions they are from."""

    point: Point
    judged: tuple[Judged, ...]
    effective: Effective

    @property
    def is_allowed(self) -> bool:
        return not any(item.blocks for item in self.judged)

    @property
    def shown(self) -> tuple[Judged, ...]:
        """The rules that requesters see: those that warn or enforce."""
        return tuple(item for item in self.judged if item.mode in {Mode.WARN, Mode.ENFORCE})

    @property
    def observed(self) -> tuple[Judged, ...]:
        return tuple(item for item in self.judged if item.mode is Mode.OBSERVE)


def judge(
    image: Image, repository: Repository, environment: Environment | None, points: tuple[Point, ...]
) -> ImageVerdict:
    """Return the verdict about an image of a source repository, for an environment, by the rules and waivers of now.

    With several points, the firmest mode of each rule counts.
    """
    effective, point = effective_rules(repository.team, environment), points[0]
    live = rules_at(effective.rules, points)
    if not live:
        return ImageVerdict(point, (), effective)
    (facts,) = facts_of_images([(image, repository, environment)], needs_of(live))
    rows = waivers_for(
        repository.team_id, repository_ids=[repository.pk], environment_id=environment.pk if environment else None
    )
    waivers = waivers_covering(rows, repository, facts) if rows else []
    return ImageVerdict(point, judge_image(live, facts, point, waivers=waivers, evaluate=cel.evaluate), effective)


def waivers_covering(rows: Iterable[Waiver], repository: Repository, facts: ImageFacts) -> list[WaiverFact]:
    """Return the waivers that cover the image of these facts, by its digest or one of its platforms'."""
    digests = {facts.digest, *(platform.digest for platform in facts.platforms)}
    return facts_of_waivers(rows, repository, digests)
