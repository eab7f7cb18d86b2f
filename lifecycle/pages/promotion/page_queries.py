"""Data for the promotion pages: requests with their last evaluation, in a fixed number of queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.db.models import Count, Q, QuerySet, Window
from django.db.models.functions import RowNumber

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.audit.actions import Action
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.queries import environments_visible_to
from lifecycle.authority.rights import may
from lifecycle.core import clock
from lifecycle.environments.models import Environment, Slot
from lifecycle.jobs.models import Job
from lifecycle.jobs.queries import jobs_of, log_tail
from lifecycle.promotion.kinds import PROMOTE
from lifecycle.promotion.models import Evaluation, PromotionRequest, Vote
from lifecycle.promotion.queries import UNMET, as_ended, promotions_visible_to
from lifecycle.promotion.refusals import why_not_request_image
from lifecycle.registry.models import Image, Repository
from lifecycle.registry.platforms import entries_of_images

State = PromotionRequest.State
LATELY: Final = timedelta(days=30)
CELL_SHOWS: Final = 2  # waiting requests shown in one cell of the board
# Worst first, so that readers see the open requirements first.
_ORDER: Final = ("unsatisfied", "error", "pending", UNMET, "bypassed", "waived", "satisfied", "not_applicable")
_NEEDS_SOMEBODY: Final = frozenset({"unsatisfied", "error", "pending"})
_IS_OPEN: Final = _NEEDS_SOMEBODY | {UNMET}
_WORDS: Final = {
    State.READY: "Ready: all requirements are met",
    State.EXECUTING: "Running: copying the image",
    State.VERIFYING: "Verifying: checking the copied image",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A request and its requirements from one evaluation."""

    promotion: PromotionRequest
    requirements: list[dict[str, Any]]  # worst first
    findings: dict[str, Any] | None  # from Evaluation.inputs; None: unknown
    holds: str | None  # the digest in the target at that time

    @property
    def states(self) -> list[str]:
        return [requirement["status"] for requirement in self.requirements]

    @property
    def open_requirements(self) -> list[dict[str, Any]]:
        return [requirement for requirement in self.requirements if requirement["status"] in _IS_OPEN]

    @property
    def met_requirements(self) -> list[dict[str, Any]]:
        return [requirement for requirement in self.requirements if requirement["status"] not in _IS_OPEN]

    @property
    def state_words(self) -> str:
        """The state with counts of open requirements: "Open: 1 unsatisfied, 1 pending"."""
        state = State(self.promotion.state)
        if state == State.OPEN:
            counts = [(word, self.states.count(word)) for word in ("unsatisfied", "error", "pending")]
            return "Open: " + (", ".join(f"{count} {word}" for word, count in counts if count) or "being checked")
        return str(_WORDS.get(state, state.label))

    @property
    def approvals(self) -> dict[str, Any] | None:
        return next((item for item in self.requirements if item["name"] == "approvals"), None)

    @property
    def approval_words(self) -> str:
        """Given and required approvals: "1 of 2 approvals"; "" when none are required or known."""
        counts = self.approvals.get("counts") if self.approvals else None
        return f"{counts['given']} of {counts['required']} approvals" if counts and counts["required"] else ""

    @property
    def unknown_words(self) -> str:
        """What nobody could judge in the image: "2 packages unknown"; "" when nothing, or when all is unknown."""
        findings = self.findings or {}
        if findings.get("unjudged"):
            count = findings["unjudged"]
            return f"{count:,} package{'' if count == 1 else 's'} unknown"
        return "no packages recognised" if findings.get("without_packages") else ""

    def who_can_act(self, reader: User) -> str:
        """Return who can still approve, the reader first: "You, kim and 2 others"; "" when no approval is missing."""
        approvals = self.approvals
        if self.promotion.state != State.OPEN or approvals is None or approvals["status"] not in _NEEDS_SOMEBODY:
            return ""
        others = [name for name in approvals["who"] if name != reader.username]
        names = (["You"] if len(others) < len(approvals["who"]) else []) + others
        if len(names) > 3:
            return f"{', '.join(names[:2])} and {len(names) - 2} others"
        if names == ["You"]:
            return "only you"
        return ", ".join(names)


def judged(promotions: Iterable[PromotionRequest]) -> list[Judged]:
    """Return the requests in their order, each with its latest evaluation; one query for any number."""
    requests = list(promotions)
    evaluations = Evaluation.objects.filter(request__in=[row.pk for row in requests])
    latest = {row.request_id: row for row in evaluations.order_by("request", "-pk").distinct("request")}
    return [of_evaluation(row, latest.get(row.pk)) for row in requests]


def of_evaluation(promotion: PromotionRequest, evaluation: Evaluation | None) -> Judged:
    """Return a request with the requirements of `evaluation`; without requirements when that is None."""
    if evaluation is None:
        return Judged(promotion, [], None, None)
    inputs = evaluation.inputs
    requirements = in_order(as_ended(promotion, evaluation.requirements))
    return Judged(promotion, requirements, inputs.get("findings"), inputs.get("holds"))


def in_order(requirements: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the requirements, worst first."""
    return sorted(requirements, key=lambda item: _ORDER.index(item["status"]) if item["status"] in _ORDER else 0)


def failed_of(reader: User) -> QuerySet[PromotionRequest]:
    """Return the recently failed promotions that `reader` requested or ran; page by -id."""
    mine = Q(requested_by=reader) | Q(executed_by=reader)
    return promotions_visible_to(reader).filter(mine, state=State.FAILED, finished_at__gt=clock.now() - LATELY)


def failed_jobs_of(reader: User) -> QuerySet[Job]:
    """Return the recently failed jobs of `reader`, without promotion jobs (see `failed_of`); page by -id."""
    rows = Job.objects.filter(actor=reader, state=Job.State.FAILED, finished_at__gt=clock.now() - LATELY)
    return rows.exclude(kind=PROMOTE.name)


def decided_lately_by(reader: User) -> QuerySet[PromotionRequest]:
    """Return the requests with a recent vote of `reader` that has not lapsed; page by -id."""
    mine = Vote.objects.filter(voter=reader, lapsed_at=None, at__gt=clock.now() - LATELY).values("request")
    return promotions_visible_to(reader).filter(pk__in=mine)


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One line of a request's timeline."""

    icon: str
    css: str
    text: str
    sub: str
    at: Any


_TIMELINE: Final[Mapping[str, tuple[str, str, str]]] = {
    # action -> (icon, tone, sentence with the placeholders {actor} and {voter})
    Action.PROMOTION_REQUESTED: ("git-pull-request-arrow", "", "{actor} requested the promotion"),
    Action.PROMOTION_APPROVED: ("check", "good", "{actor} approved the request"),
    Action.PROMOTION_REJECTED: ("x", "bad", "{actor} rejected the request"),
    Action.PROMOTION_VOTE_LAPSED: ("history", "bad", "The vote of {voter} lapsed"),
    Action.PROMOTION_READY: ("circle-check", "good", "All requirements are met"),
    Action.PROMOTION_REGRESSED: ("circle-x", "bad", "No longer ready"),
    Action.PROMOTION_EXECUTING: ("play", "", "{actor} ran the promotion"),
    Action.PROMOTION_VERIFYING: ("shield-check", "", "Copied. Checking the image in the target."),
    Action.PROMOTION_SUCCEEDED: ("circle-check", "good", "Promoted"),
    Action.PROMOTION_ATTEMPT_FAILED: ("triangle-alert", "bad", "The copy failed. You can run it again."),
    Action.PROMOTION_FAILED: ("circle-x", "bad", "Failed"),
    Action.PROMOTION_WITHDRAWN: ("undo-2", "", "{actor} withdrew the request"),
    Action.PROMOTION_EXPIRED: ("hourglass", "bad", "Expired"),
}
_EXPIRED: Final = {"approve_by": "Not approved in time.", "execute_by": "Not run in time."}


def timeline_of(promotion: PromotionRequest) -> list[TimelineEntry]:
    """Return the latest 50 audit events of a request as sentences, newest first."""
    events = AuditEvent.objects.filter(
        subject_kind=PromotionRequest._meta.model_name, subject_id=promotion.pk
    ).order_by("-pk")[:50]
    lines = []
    for event in events:
        icon, css, sentence = _TIMELINE.get(event.action, ("circle-dot", "", event.action.replace(".", " ")))
        values = {"actor": event.actor_name, "voter": str(event.details.get("voter", ""))}
        sub = event.reason if event.action != Action.PROMOTION_REQUESTED else ""
        lines.append(TimelineEntry(icon, css, sentence.format(**values), _EXPIRED.get(sub, sub), event.at))
    return lines


@dataclass(frozen=True, slots=True)
class Copying:
    """Progress of a request's copy: the latest job, and the end of its log."""

    job: Job | None
    lines: list[str]


def copying_of(promotion: PromotionRequest) -> Copying | None:
    """Return the running or latest copy of a request; None before the first."""
    if promotion.attempts == 0:
        return None
    job = jobs_of(PROMOTE.name, promotion.pk).first()
    lines = log_tail(job.log_lines.all(), limit=20)[0] if job is not None else []
    return Copying(job, [line.text for line in lines])


@dataclass(frozen=True, slots=True)
class Target:
    """An environment as a target for an image: its current image, and why the image cannot be requested there now."""

    environment: Environment
    slot: Slot | None  # with its image; None before the first request of the source repository for this environment
    live: PromotionRequest | None  # the unfinished request for this digest
    why_not: str  # "" when the reader can request it
    first: str  # the environment that the image must pass before this one can be ready; "" when it has

    @property
    def holds(self) -> Image | None:
        return self.slot.image if self.slot is not None else None


def targets_for(reader: User, repository: Repository, image: Image) -> list[Target]:
    """Return the visible environments of the repository's team as targets for `image`, in promotion order."""
    environments = list(environments_visible_to(reader).filter(team=repository.team_id).order_by("position"))
    slots = {slot.environment_id: slot for slot in Slot.objects.filter(repository=repository).select_related("image")}
    requests = PromotionRequest.objects.filter(repository=repository, image=image)
    live = {row.environment_id: row for row in requests.filter(state__in=PromotionRequest.NEXT)}
    was_in = set(requests.filter(state=State.SUCCEEDED).values_list("environment", flat=True))
    was_in |= {slot.environment_id for slot in slots.values() if slot.image_id == image.pk}
    targets = []
    before: Environment | None = None
    for environment in environments:
        slot = slots.get(environment.pk)
        why_not = str(why_not_request_image(reader, repository, environment, image, slot=slot) or "")
        if environment.pk in live:
            why_not = f"{live[environment.pk]} already requests this."
        first = before.slug if before is not None and before.pk not in was_in else ""
        targets.append(Target(environment, slot, live.get(environment.pk), why_not, first))
        before = environment
    return targets


def why_not_promotable(reader: User, repository: Repository) -> str:
    """Return why `reader` cannot request any promotion from a repository, "" when they can."""
    if repository.source_id is not None:
        return "Promote from the source repository instead."
    decision = may(reader, Verb.PROMOTION_REQUEST, repository=repository)
    environments = list(Environment.objects.filter(team=repository.team_id).order_by("position"))
    if not decision and not any(
        may(reader, Verb.PROMOTION_REQUEST, repository=repository, environment=environment)
        for environment in environments
    ):
        return decision.reason
    return "" if environments else "The team has no environments yet. Add one on the team page."


@dataclass(frozen=True, slots=True)
class Cell:
    """The current image of one source repository in one environment, and the requests that wait."""

    environment: Environment
    slot: Slot | None
    platforms: Sequence[tuple[str, Image]]  # of the current image
    waiting: list[Judged]  # the newest ones

    @property
    def more(self) -> int:
        """Number of waiting requests that are not shown."""
        return self.waiting[0].promotion.in_all - len(self.waiting) if self.waiting else 0  # type: ignore[attr-defined]  # annotated by the query


@dataclass(frozen=True, slots=True)
class BoardRow:
    family: Repository
    cells: list[Cell]


def board_of(families: Sequence[Repository], environments: Sequence[Environment]) -> list[BoardRow]:
    """Return one row for each source repository, with one cell for each environment; four queries for any number."""
    slots = {
        (slot.repository_id, slot.environment_id): slot
        for slot in Slot.objects.filter(repository__in=families, image__isnull=False).select_related("image")
    }
    platforms = entries_of_images([slot.image for slot in slots.values() if slot.image is not None])
    live = PromotionRequest.objects.filter(repository__in=families, state__in=PromotionRequest.NEXT).annotate(
        place=Window(RowNumber(), partition_by=["repository", "environment"], order_by="-pk"),
        in_all=Window(Count("pk"), partition_by=["repository", "environment"]),
    )
    waiting: dict[tuple[int, int], list[Judged]] = defaultdict(list)
    for row in judged(live.filter(place__lte=CELL_SHOWS).select_related("image").order_by("-pk")):
        waiting[row.promotion.repository_id, row.promotion.environment_id].append(row)
    return [
        BoardRow(
            family,
            [
                Cell(
                    environment,
                    slot := slots.get((family.pk, environment.pk)),
                    platforms.get(slot.image_id, []) if slot is not None and slot.image_id else [],
                    waiting[family.pk, environment.pk],
                )
                for environment in environments
            ],
        )
        for family in families
    ]
