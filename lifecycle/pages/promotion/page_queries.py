"""Data for the promotion pages: requests with their last evaluation, in a fixed number of queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.db.models import Count, Q, QuerySet, Sum, Window
from django.db.models.functions import RowNumber

from accounts.models import Team, User
from accounts.verbs import Verb
from lifecycle.alerts.queries import LIVE, alerts_visible_to, filtered
from lifecycle.audit.actions import Action
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.queries import environments_visible_to, teams_where
from lifecycle.authority.rights import may
from lifecycle.clusters.models import Cluster, NamespaceBinding
from lifecycle.clusters.queries import clusters_visible_to
from lifecycle.core import clock
from lifecycle.environments.models import CURRENT_TAG, Environment, Hold, PromotionWindow, Slot
from lifecycle.inventory.queries import running_images_visible_to
from lifecycle.jobs.models import Job
from lifecycle.jobs.queries import jobs_of, log_tail
from lifecycle.policy.windows import state_at
from lifecycle.promotion.holds import active
from lifecycle.promotion.kinds import PROMOTE, RELEASE
from lifecycle.promotion.models import Evaluation, PromotionRequest, ReleaseSet
from lifecycle.promotion.opening import as_window, closed_words
from lifecycle.promotion.queries import UNMET, as_ended, promotions_visible_to, standing_votes, with_joins
from lifecycle.promotion.refusals import why_not_request_image
from lifecycle.quarantine.queries import add_covers, why_quarantined
from lifecycle.registry.models import Image, Repository, Tag
from lifecycle.registry.platforms import entries_of_images

State = PromotionRequest.State
LATELY: Final = timedelta(days=30)
BINDINGS_SHOWN: Final = 100
CELL_SHOWS: Final = 2  # waiting requests shown in one cell of the board
# Worst first, so that readers see the open requirements first.
WARNING: Final = "warning"  # shown for an unmet rule of a policy that warns and does not stop
_ORDER: Final = ("unsatisfied", "error", "pending", UNMET, WARNING, "bypassed", "waived", "satisfied", "not_applicable")
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


def loaded(*lists: QuerySet[PromotionRequest]) -> list[list[PromotionRequest]]:
    """Return the requests of each list in its order, loaded with one query for all lists.

    A list reads only its ids. PostgreSQL takes longer to plan the joins of a request than to run the whole list.
    """
    ids = [list(rows.values_list("pk", flat=True)) for rows in lists]
    joined = with_joins(PromotionRequest.objects.all()).defer("image__manifest", "image__config")
    rows = joined.in_bulk({pk for part in ids for pk in part})
    return [[rows[pk] for pk in part if pk in rows] for part in ids]


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
    """Return the requirements, worst first. An unmet rule that only warns is a warning: it needs nobody."""
    shown = [
        {**item, "status": WARNING} if item.get("mode") == "warn" and item["status"] in _IS_OPEN else item
        for item in requirements
    ]
    return sorted(shown, key=lambda item: _ORDER.index(item["status"]) if item["status"] in _ORDER else 0)


def failed_of(reader: User) -> QuerySet[PromotionRequest]:
    """Return the recently failed promotions that `reader` requested or ran; page by -id."""
    mine = Q(requested_by=reader) | Q(executed_by=reader)
    failed = promotions_visible_to(reader).filter(mine, state=State.FAILED, release_set=None)
    return failed.filter(finished_at__gt=clock.now() - LATELY)


def failed_jobs_of(reader: User) -> QuerySet[Job]:
    """Return the recently failed jobs of `reader`, without promotion jobs (see `failed_of`); page by -id."""
    rows = Job.objects.filter(actor=reader, state=Job.State.FAILED, finished_at__gt=clock.now() - LATELY)
    return rows.exclude(kind__in=(PROMOTE.name, RELEASE.name))


def decided_lately_by(reader: User) -> QuerySet[PromotionRequest]:
    """Return the requests with a recent vote of `reader` that has not lapsed; page by -id."""
    mine = standing_votes().filter(voter=reader, at__gt=clock.now() - LATELY).values("request")
    return promotions_visible_to(reader).filter(pk__in=mine, release_set=None)


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
    Action.PROMOTION_OBJECTED: ("octagon-x", "bad", "{actor} objected"),
    Action.PROMOTION_OBJECTION_OVERRULED: ("stamp", "", "{actor} overruled the objection of {voter}"),
    Action.PROMOTION_VOTE_WITHDRAWN: ("undo-2", "", "{actor} took back their vote"),
    Action.PROMOTION_VOTE_LAPSED: ("history", "bad", "The vote of {voter} lapsed"),
    Action.PROMOTION_READY: ("circle-check", "good", "All requirements are met"),
    Action.PROMOTION_REGRESSED: ("circle-x", "bad", "No longer ready"),
    Action.PROMOTION_COMMENTED: ("pencil", "", "{actor} commented"),
    Action.PROMOTION_THREAD_RESOLVED: ("check", "", "{actor} resolved a thread"),
    Action.PROMOTION_TO_VERIFY: ("eye", "", "The image is there, and must be verified"),
    Action.PROMOTION_BREAK_GLASS: ("siren", "bad", "{actor} broke the glass"),
    Action.PROMOTION_REVIEWED: ("eye", "", "{actor} reviewed the use of break-glass"),
    Action.PROMOTION_REVIEW_OVERDUE: ("hourglass", "bad", "The review is overdue"),
    Action.PROMOTION_EXECUTING: ("play", "", "{actor} ran the promotion"),
    Action.PROMOTION_VERIFYING: ("shield-check", "", "Copied. Checking the image in the target."),
    Action.PROMOTION_SUCCEEDED: ("circle-check", "good", "Promoted"),
    Action.PROMOTION_ATTEMPT_FAILED: ("triangle-alert", "bad", "The copy failed. You can run it again."),
    Action.PROMOTION_FAILED: ("circle-x", "bad", "Failed"),
    Action.PROMOTION_WITHDRAWN: ("undo-2", "", "{actor} withdrew the request"),
    Action.PROMOTION_REMINDED: ("clock", "", "The deadline is near"),
    Action.PROMOTION_SUPERSEDING: ("hourglass", "", "{newer} is newer. It replaces this request in 10 minutes."),
    Action.PROMOTION_SUPERSEDED: ("history", "bad", "Superseded by {newer}"),
    Action.PROMOTION_EXPIRED: ("hourglass", "bad", "Expired"),
}
_EXPIRED: Final = {"approve_by": "Not approved in time.", "execute_by": "Not run in time."}


_SET_TIMELINE: Final[Mapping[str, tuple[str, str, str]]] = {
    Action.RELEASE_SET_REQUESTED: ("git-pull-request-arrow", "", "{actor} requested the set"),
    Action.RELEASE_SET_APPROVED: ("check", "good", "{actor} approved all members"),
    Action.RELEASE_SET_REJECTED: ("x", "bad", "{actor} rejected the set"),
    Action.RELEASE_SET_OBJECTED: ("octagon-x", "bad", "{actor} objected"),
    Action.RELEASE_SET_OVERRULED: ("stamp", "", "{actor} overruled the objection of {voter}"),
    Action.RELEASE_SET_VOTE_WITHDRAWN: ("undo-2", "", "{actor} took back their vote"),
    Action.RELEASE_SET_READY: ("circle-check", "good", "All requirements of all members are met"),
    Action.RELEASE_SET_REGRESSED: ("circle-x", "bad", "No longer ready"),
    Action.RELEASE_SET_EXECUTING: ("play", "", "{actor} ran the set"),
    Action.RELEASE_SET_REVERTING: ("undo-2", "bad", "A member failed. Putting the targets back."),
    Action.RELEASE_SET_SUCCEEDED: ("circle-check", "good", "All members promoted"),
    Action.RELEASE_SET_ATTEMPT_FAILED: ("triangle-alert", "bad", "Put back. You can run it again."),
    Action.RELEASE_SET_FAILED: ("circle-x", "bad", "Failed. The targets were put back, unless the reason names one."),
    Action.RELEASE_SET_WITHDRAWN: ("undo-2", "", "{actor} withdrew the set"),
    Action.RELEASE_SET_REMINDED: ("clock", "", "The deadline is near"),
    Action.RELEASE_SET_SUPERSEDED: ("history", "bad", "Superseded by {newer}"),
    Action.RELEASE_SET_EXPIRED: ("hourglass", "bad", "Expired"),
}


def timeline_of(subject: PromotionRequest | ReleaseSet) -> list[TimelineEntry]:
    """Return the latest 50 audit events of a request or a set as sentences, newest first."""
    known = _TIMELINE if isinstance(subject, PromotionRequest) else _SET_TIMELINE
    about = AuditEvent.objects.filter(subject_kind=subject._meta.model_name, subject_id=subject.pk)
    events = about.order_by("-pk")[:50]
    lines = []
    for event in events:
        icon, css, sentence = known.get(event.action, ("circle-dot", "", event.action.replace(".", " ")))
        values = {"actor": event.actor_name, "voter": "", "newer": ""}
        values |= {name: str(event.details[name]) for name in ("voter", "newer") if name in event.details}
        is_asked = event.action in {Action.PROMOTION_REQUESTED, Action.RELEASE_SET_REQUESTED}
        sub = event.reason if not is_asked else ""
        lines.append(TimelineEntry(icon, css, sentence.format(**values), _EXPIRED.get(sub, sub), event.at))
    return lines


@dataclass(frozen=True, slots=True)
class Copying:
    """Progress of a request's copy: the latest job, and the end of its log."""

    job: Job | None
    lines: list[str]


def copying_of(subject: PromotionRequest | ReleaseSet) -> Copying | None:
    """Return the running or latest copy of a request or set; None before the first, and for a member of a set."""
    if subject.attempts == 0 or (isinstance(subject, PromotionRequest) and subject.release_set_id is not None):
        return None
    kind = PROMOTE if isinstance(subject, PromotionRequest) else RELEASE
    job = jobs_of(kind.name, subject.pk).first()
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
    path = environments_visible_to(reader).filter(team=repository.team_id, archived_at=None)
    environments = list(path.order_by("position"))
    slots = {slot.environment_id: slot for slot in Slot.objects.filter(repository=repository).select_related("image")}
    requests = PromotionRequest.objects.filter(repository=repository, image=image)
    live = {row.environment_id: row for row in requests.filter(state__in=PromotionRequest.NEXT)}
    was_in = set(requests.filter(state=State.SUCCEEDED).values_list("environment", flat=True))
    was_in |= {slot.environment_id for slot in slots.values() if slot.image_id == image.pk}
    quarantine = why_quarantined(image)
    targets = []
    before: Environment | None = None
    for environment in environments:
        slot = slots.get(environment.pk)
        reason = why_not_request_image(reader, repository, environment, image, slot=slot, quarantine=quarantine)
        why_not = str(reason or "")
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
    if repository.is_archived:
        return "The repository is archived."
    decision = may(reader, Verb.PROMOTION_REQUEST, repository=repository)
    path = Environment.objects.filter(team=repository.team_id, archived_at=None)
    environments = list(path.order_by("position"))
    if not decision and not any(
        may(reader, Verb.PROMOTION_REQUEST, repository=repository, environment=environment)
        for environment in environments
    ):
        return decision.reason
    return "" if environments else "The team has no environments yet. Add one on the team page."


def unsatisfiable_for(reader: User) -> list[Environment]:
    """Return the environments that `reader` manages and to which nobody can promote any more."""
    teams = teams_where(reader, Verb.ENVIRONMENT_MANAGE)
    rows = Environment.objects.filter(unsatisfiable_since__isnull=False, team__in=teams)
    return list(rows.select_related("team").order_by("unsatisfiable_since"))


@dataclass(frozen=True, slots=True)
class Gate:
    """An environment with its holds and what its windows say now."""

    environment: Environment
    holds: list[Hold]
    closed: str  # "" when promotions may run


def holds_over(team: Team, environments: Sequence[Environment]) -> list[Hold]:
    """Return the active holds of the site, the team and these environments that hold more than one repository."""
    shown = {environment.pk for environment in environments}
    rows = active().filter(Q(team=None) | Q(team=team), repository=None)
    return [hold for hold in rows if hold.environment_id is None or hold.environment_id in shown]


def gates_of(team: Team, environments: Sequence[Environment]) -> dict[int, Gate]:
    """Return the gate of each environment by its id; two queries for any number."""
    holds = list(active().filter(Q(team=None) | Q(team=team)))
    windows = list(PromotionWindow.objects.filter(Q(team=None) | Q(team=team)).select_related("team", "environment"))
    moment = clock.now()
    gates = {}
    for environment in environments:
        here = [row for row in windows if row.environment_id in {None, environment.pk}]
        opening = state_at([as_window(row) for row in here], moment)
        held = [hold for hold in holds if hold.environment_id in {None, environment.pk}]
        gates[environment.pk] = Gate(environment, held, closed_words(opening))
    return gates


@dataclass(frozen=True, slots=True)
class Cell:
    """The current image of one source repository in one environment, and the requests that wait."""

    environment: Environment
    slot: Slot | None
    platforms: Sequence[tuple[str, Image]]  # of the current image
    waiting: list[Judged]  # the newest ones
    holds: list[Hold]  # of this repository here
    can_go_back: bool  # another image was promoted here before
    drifted_to: str  # the digest that `current` has in the registry, when it is not the promoted one; else ""

    @property
    def more(self) -> int:
        """Number of waiting requests that are not shown."""
        return self.waiting[0].promotion.in_all - len(self.waiting) if self.waiting else 0  # type: ignore[attr-defined]  # annotated by the query


@dataclass(frozen=True, slots=True)
class BoardRow:
    family: Repository
    cells: list[Cell]


def board_of(
    families: Sequence[Repository], environments: Sequence[Environment], gates: Mapping[int, Gate], actor: User
) -> list[BoardRow]:
    """Return one row for each source repository, with one cell for each environment; six queries for any number."""
    tags = Tag.objects.filter(repository__source__in=families, name=CURRENT_TAG)
    current = {
        (source, environment): digest
        for source, environment, digest in tags.values_list(
            "repository__source", "repository__environment", "image__digest"
        )
    }
    slots = {
        (slot.repository_id, slot.environment_id): slot
        for slot in Slot.objects.filter(repository__in=families, image__isnull=False).select_related("image")
    }
    platforms = entries_of_images([slot.image for slot in slots.values() if slot.image is not None])
    add_covers((slot.image for slot in slots.values()), actor)
    live = PromotionRequest.objects.filter(repository__in=families, state__in=PromotionRequest.NEXT).annotate(
        place=Window(RowNumber(), partition_by=["repository", "environment"], order_by="-pk"),
        in_all=Window(Count("pk"), partition_by=["repository", "environment"]),
    )
    waiting: dict[tuple[int, int], list[Judged]] = defaultdict(list)
    for row in judged(live.filter(place__lte=CELL_SHOWS).select_related("image").order_by("-pk")):
        waiting[row.promotion.repository_id, row.promotion.environment_id].append(row)
    before: dict[tuple[int, int], set[int | None]] = defaultdict(set)
    done = PromotionRequest.objects.filter(repository__in=families, state=State.SUCCEEDED)
    for repository, environment_id, image in done.values_list("repository", "environment", "image").distinct():
        before[repository, environment_id].add(image)
    return [
        BoardRow(
            family,
            [
                Cell(
                    environment,
                    slot := slots.get((family.pk, environment.pk)),
                    platforms.get(slot.image_id, []) if slot is not None and slot.image_id else [],
                    waiting[family.pk, environment.pk],
                    [hold for hold in gates[environment.pk].holds if hold.repository_id == family.pk],
                    bool(before[family.pk, environment.pk] - {slot.image_id if slot is not None else None}),
                    _drift(slot, current.get((family.pk, environment.pk))),
                )
                for environment in environments
            ],
        )
        for family in families
    ]


def _drift(slot: Slot | None, current: str | None) -> str:
    promoted = slot.image.digest if slot is not None and slot.image is not None else None
    return current if current is not None and promoted is not None and current != promoted else ""


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster with namespaces that are bound to an environment, and what runs in them now."""

    cluster: Cluster
    bindings: Sequence[NamespaceBinding]
    images: int  # once for each workload
    containers: int
    alerts: int  # live ones


def places_of_environment(environment: Environment, actor: User) -> list[Place]:
    """Return where the images of an environment run, in clusters that `actor` can see.

    Three queries, and those of rights.
    """
    bindings: dict[int, list[NamespaceBinding]] = defaultdict(list)
    clusters = clusters_visible_to(actor).values("pk")
    rows = NamespaceBinding.objects.filter(environment=environment, cluster__in=clusters).select_related(
        "cluster__team"
    )
    for row in rows.order_by("cluster__slug", "pattern")[:BINDINGS_SHOWN]:
        bindings[row.cluster_id].append(row)
    here = Q(is_place_seen=True) & Q(environment=environment, cluster__in=list(bindings))
    running = running_images_visible_to(actor).filter(here, until=None).order_by().values_list("cluster")
    counts = {pk: (images, total) for pk, images, total in running.annotate(Count("pk"), total=Sum("containers"))}
    live = filtered(alerts_visible_to(actor), state=LIVE).filter(here).order_by()
    alerts = dict(live.values_list("cluster").annotate(count=Count("pk")))
    return [Place(of[0].cluster, of, *counts.get(pk, (0, 0)), alerts.get(pk, 0)) for pk, of in bindings.items()]
