"""Data for the rebuild pages: waves with counts, one wave by level, logs, and reasons for disabled buttons."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.db import connection
from django.db.models import (
    BooleanField,
    Case,
    Count,
    Exists,
    ExpressionWrapper,
    IntegerField,
    Max,
    OuterRef,
    Q,
    QuerySet,
    Value,
    When,
)

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.advisories.models import Advisory
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.core import clock
from lifecycle.core.reasons import Reason
from lifecycle.core.severities import SEVERITIES
from lifecycle.environments.models import Environment
from lifecycle.evidence.findings import FindingsDiff, diff_of_images
from lifecycle.jobs.models import Job, JobLogLine
from lifecycle.lineage.models import Derivation
from lifecycle.pages.templatetags.gravingdock import plural
from lifecycle.promotion.models import PromotionRequest
from lifecycle.promotion.queries import promotions_visible_to
from lifecycle.rebuild.estimates import note_of
from lifecycle.rebuild.kinds import REBUILD
from lifecycle.rebuild.models import RebuildJob, RebuildWave
from lifecycle.rebuild.queries import jobs_visible_to, skipped_visible_to, slots_to_update, waves_visible_to
from lifecycle.rebuild.refusals import why_not_confirm, why_not_steer
from lifecycle.registry.models import Image, Repository, RepositoryImage, Tag
from lifecycle.registry.platforms import platform_ids
from lifecycle.registry.queries import given_by_people

ROWS_MAX: Final = 40  # of one level; the rest is only counted until the reader opens it
IDS_MAX: Final = 60  # advisory ids of one list; the comparison of the two images has all of them
TAIL_LINES: Final = 8  # of a job's log, in its row
TAILS_MAX: Final = 12  # rows with a log; the other rows only link to the full log
LOG_LINES: Final = 2000  # the latest lines on the log page; the raw download has all of them
BASES_MAX: Final = 300  # choices in the form; for other bases, plan from the repository page

State = RebuildJob.State
GOOD_STATES: Final = (State.DONE, State.UNCHANGED)
BUSY_STATES: Final = (State.BUILDING, State.SCANNING)


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of the images of a wave that the reader can see. An advisory counts once, in however many images."""

    total: int = 0
    done: int = 0
    busy: int = 0
    failed: int = 0
    blocked: int = 0
    cancelled: int = 0
    fixed: int = 0
    introduced: int = 0
    would_fix: int = 0  # estimated before the build
    unmeasured: int = 0  # images that are not built, not scanned or not judged yet: what they fix is unknown

    @property
    def waiting(self) -> int:
        return self.total - self.done - self.busy - self.failed - self.blocked - self.cancelled

    @property
    def announcement(self) -> str:
        """Progress for screen readers: "3 of 6 images done, 1 failed"."""
        done = f"{self.done} of {plural(self.total, 'image')} done"
        return f"{done}, {self.failed} failed" if self.failed else done

    @property
    def parts(self) -> list[tuple[str, str, int]]:
        """The non-empty parts of the progress bar: (class, words, amount)."""
        parts = [
            ("done", f"{self.done} done", self.done),
            ("busy", f"{self.busy} building", self.busy),
            ("failed", f"{self.failed} failed", self.failed),
            ("blocked", f"{self.blocked} blocked", self.blocked),
            ("rest", f"{self.cancelled} cancelled", self.cancelled),
            ("rest", f"{self.waiting} waiting", self.waiting),
        ]
        return [part for part in parts if part[2]]

    @property
    def parts_words(self) -> str:
        """The parts of the progress bar in words."""
        return ", ".join(text for _, text, _ in self.parts)

    @property
    def words(self) -> str:
        """The accessible name of the progress bar."""
        return f"{self.parts_words}, of {self.total}"


_COUNTED: Final = ("total", "done", "busy", "failed", "blocked", "cancelled", "unmeasured")


def counts_of(waves: Collection[int], visible: QuerySet[Repository]) -> dict[int, Counts]:
    """Return the counts of each wave, for images in `visible` repositories; two queries for any number of waves."""
    if not waves:
        return {}
    shown = RebuildJob.objects.filter(wave__in=waves, repository__in=visible).order_by()
    rows = shown.values("wave_id").annotate(
        total=Count("pk"),
        done=Count("pk", filter=Q(state__in=GOOD_STATES)),
        busy=Count("pk", filter=Q(state__in=BUSY_STATES)),
        failed=Count("pk", filter=Q(state=State.FAILED)),
        blocked=Count("pk", filter=Q(state=State.BLOCKED)),
        cancelled=Count("pk", filter=Q(state=State.CANCELLED)),
        # The findings of a result are counted together with what it fixed.
        unmeasured=Count("pk", filter=Q(findings_after=None, state__in=(State.WAITING, *BUSY_STATES, State.DONE))),
    )
    different: dict[int, dict[str, int]] = defaultdict(dict)
    sql, parameters = shown.values("wave_id", "fixed", "introduced", "would_fix").query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(_DIFFERENT.format(jobs=sql), parameters)
        for wave_id, name, count in cursor.fetchall():
            different[wave_id][name] = count
    return {
        row["wave_id"]: Counts(**{name: row[name] for name in _COUNTED}, **different[row["wave_id"]]) for row in rows
    }


# The advisories in the lists of all jobs of a wave, each once.
_DIFFERENT: Final = """
SELECT job.wave_id, named.list, count(DISTINCT named.osv_id)
FROM ({jobs}) job (wave_id, fixed, introduced, would_fix)
CROSS JOIN LATERAL (
    SELECT lists.list, jsonb_array_elements_text(lists.osv_ids) AS osv_id
    FROM (VALUES ('fixed', job.fixed), ('introduced', job.introduced), ('would_fix', job.would_fix))
         lists (list, osv_ids)
    WHERE jsonb_typeof(lists.osv_ids) = 'array'
) named
GROUP BY job.wave_id, named.list
"""


def _different(lists: Iterable[Iterable[str] | None]) -> set[str]:
    return {osv_id for osv_ids in lists for osv_id in osv_ids or ()}


def waves_about(repository: Repository, actor: User) -> QuerySet[RebuildWave]:
    """Return the visible waves that rebuild images of `repository` or images built on it; page by -id."""
    jobs = RebuildJob.objects.filter(wave=OuterRef("pk"), repository=repository)
    return waves_visible_to(actor).filter(Q(repository=repository) | Exists(jobs))


def waves_to_confirm(actor: User) -> QuerySet[RebuildWave]:
    """Return the non-empty planned waves that `actor` can confirm: has image.rebuild on every repository in them."""
    allowed = repositories_visible_to(actor, Verb.IMAGE_REBUILD).values("pk")
    jobs = RebuildJob.objects.filter(wave=OuterRef("pk"))
    return waves_visible_to(actor).filter(
        Exists(jobs), ~Exists(jobs.exclude(repository__in=allowed)), state=RebuildWave.State.PLANNED
    )


# Bases


def repositories_built_on(base: Repository, among: QuerySet[Repository]) -> QuerySet[Repository]:
    """Return the source repositories in `among` that have an image built on an image of `base`."""
    bases = RepositoryImage.objects.filter(repository=base).values("image")
    derived = Derivation.objects.filter(base__in=bases).values("derived")
    repository_ids = RepositoryImage.objects.filter(image__in=derived, removed_at=None).values("repository")
    return among.filter(pk__in=repository_ids, source=None).exclude(pk=base.pk)


def bases_visible_to(actor: User) -> QuerySet[Repository]:
    """Return the visible source repositories whose images have visible derived images, by name."""
    visible = repositories_visible_to(actor)
    derived = RepositoryImage.objects.filter(repository__in=visible, removed_at=None).values("image")
    bases = Derivation.objects.filter(derived__in=derived).values("base")
    repository_ids = RepositoryImage.objects.filter(image__in=bases).values("repository")
    return visible.filter(pk__in=repository_ids, source=None).select_related("team").order_by("name")


def tags_to_choose(base: Repository) -> QuerySet[Tag]:
    """Return the existing tags that users pushed, without those that our own workers push."""
    live = Tag.objects.filter(repository=base, image__isnull=False)
    return given_by_people(live.exclude(image__kind=Image.Kind.ARTIFACT))


def tag_to_plan(base: Repository, image: Image | None = None) -> Tag | None:
    """Return a tag of `image`, else `latest`, else the most recently updated tag; None in an empty repository."""
    rank = Case(
        When(image=image, then=Value(0)), When(name="latest", then=Value(1)), default=Value(2),
        output_field=IntegerField(),
    )  # fmt: skip
    return tags_to_choose(base).select_related("image").order_by(rank, "-updated_at", "-pk").first()


@dataclass(frozen=True, slots=True)
class PlanOffer:
    """The button that plans a rebuild on a base, with the reason when it is disabled."""

    base: Repository
    reference: str  # a tag or a digest
    why: str


def plan_offer(actor: User, base: Repository, image: Image | None = None) -> PlanOffer | None:
    """Return the offer to plan a rebuild on `base`, None when no visible image is built on it; two queries.

    For an image that no longer has a tag, the offer is the latest tag instead, so that the button never plans a rebuild
    on an old base.
    """
    # Checked first: most repositories have no derived images, and `repositories_built_on` alone would read every image.
    is_any_base = Exists(
        Derivation.objects.filter(base__in=RepositoryImage.objects.filter(repository=base).values("image"))
    )
    has_derived, can_rebuild = Repository.objects.filter(pk=base.pk).values_list(
        *(
            ExpressionWrapper(is_any_base & Exists(repositories_built_on(base, among)), output_field=BooleanField())
            for among in (repositories_visible_to(actor), repositories_visible_to(actor, Verb.IMAGE_REBUILD))
        )
    )[0]
    tag = tag_to_plan(base, image)
    if base.source_id is not None or tag is None or not has_derived:
        return None
    is_named = image is not None and tag.image_id == image.pk
    why = f"You need image.rebuild on an image built on {base.name}. Ask an owner of the team to grant it."
    return PlanOffer(base, image.digest if image and is_named else tag.name, "" if can_rebuild else why)


# One wave


@dataclass(frozen=True, slots=True)
class Offer:
    """An environment with the old image, and the promotion request for the new one, if any."""

    environment: Environment
    tag: str
    request: PromotionRequest | None


@dataclass(slots=True)
class JobRow:
    """One image of a wave, as shown in its row."""

    job: RebuildJob
    state: str  # a state for `chip_state`
    seconds: float | None
    log: list[JobLogLine] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)

    @property
    def note(self) -> str:
        """A note about the limits of the estimate."""
        return note_of(self.job)

    @property
    def image(self) -> Image:
        """The new image, or the old one until the new one exists."""
        return self.job.new_image or self.job.old_image

    @property
    def is_busy(self) -> bool:
        return self.job.state in BUSY_STATES

    @property
    def is_open(self) -> bool:
        return self.job.state in {State.WAITING, *BUSY_STATES}

    @property
    def has_result(self) -> bool:
        return self.job.state == State.DONE


# Only the columns that a row shows: an image has kilobytes of documents, and a wave can have a thousand images.
_SHOWN: Final = (
    *(column.name for column in RebuildJob._meta.concrete_fields),
    "repository__name", "repository__team__slug", "old_image__digest", "new_image__digest", "recipe__revision",
)  # fmt: skip
_URGENCY: Final[dict[str, int]] = {
    State.FAILED: 0,
    State.BUILDING: 1,
    State.SCANNING: 1,
    State.BLOCKED: 2,
    State.WAITING: 3,
}


@dataclass(slots=True)
class LevelRow:
    """The images at one distance from the base."""

    number: int
    rows: list[JobRow]
    is_whole: bool = False  # the reader opened the level: every row is shown

    @property
    def shown(self) -> list[JobRow]:
        """The rows to show; of a long level only the most urgent ones."""
        if self.is_whole or len(self.rows) <= ROWS_MAX:
            return self.rows
        return sorted(self.rows, key=lambda row: _URGENCY.get(row.job.state, 9))[:ROWS_MAX]

    @property
    def rest(self) -> Counts | None:
        """Counts of the rows that are not shown; None when all are shown."""
        shown = {id(row) for row in self.shown}
        hidden = [row.job for row in self.rows if id(row) not in shown]
        return _count(hidden) if hidden else None

    @property
    def counts(self) -> Counts:
        return _count([row.job for row in self.rows])

    @property
    def state(self) -> tuple[str, str]:
        """State and words of the level's chip."""
        counts = self.counts
        if counts.done == counts.total:
            return "done", "Done"
        if counts.busy:
            return "running", "Running"
        if counts.failed or counts.blocked:
            bad = counts.failed + counts.blocked
            return "failed", f"{bad} of {counts.total} not rebuilt"
        if counts.cancelled:
            return "cancelled", "Cancelled"
        return "waiting", "Not started" if not counts.done else "Waiting"


@dataclass(frozen=True, slots=True)
class Expected:
    """An advisory that a plan would fix, and the number of images where it would."""

    osv_id: str
    severity: str
    image_count: int


@dataclass(slots=True)
class WaveDetail:
    """All data of the page of one wave."""

    wave: RebuildWave
    tag: str  # current tag of the new base; "" when it has none
    levels: list[LevelRow]
    counts: Counts
    skipped: list[dict[str, str]]
    base_diff: FindingsDiff | None  # None: no old base, or one of the two is not scanned
    expected: list[Expected]
    why_not: Reason | None
    why_not_confirm: Reason | None
    methods: dict[str, int]
    teams: list[str]

    @property
    def rows(self) -> list[JobRow]:
        return [row for level in self.levels for row in level.rows]

    @property
    def is_guessing(self) -> bool:
        """Whether a plan still waits for estimates. Its page then polls for them."""
        return self.wave.state == RebuildWave.State.PLANNED and self.unknown_count > 0

    @property
    def unknown_count(self) -> int:
        """Number of images without an estimate yet."""
        return sum(row.job.would_fix is None for row in self.rows)

    @property
    def needs_a_person(self) -> list[JobRow]:
        return [row for row in self.rows if row.job.state == State.FAILED]

    @property
    def offered(self) -> list[JobRow]:
        return [row for row in self.rows if row.offers]

    @property
    def has_acts(self) -> bool:
        """Whether the wave has any actions left."""
        return bool(RebuildWave.NEXT.get(self.wave.state))

    @property
    def confirm_words(self) -> str:
        """Label of the button that starts the wave: "Rebuild 4 images in 2 teams"."""
        return f"Rebuild {plural(self.counts.total, 'image')} in {plural(len(self.teams), 'team')}"

    @property
    def state_words(self) -> str:
        """Current level of a running wave: "Running, level 2 of 3"."""
        return f"Running, level {self.level_now} of {self.levels[-1].number}"

    @property
    def done_words(self) -> str:
        """Counts of the finished images by method: "17 rebased, 6 rebuilt"."""
        states = [row.state for row in self.rows]
        parts = [(states.count(word), word) for word in ("rebased", "rebuilt", "unchanged")]
        return ", ".join(f"{count} {word}" for count, word in parts if count)

    @property
    def elapsed_s(self) -> float | None:
        """Seconds from the confirmation to the end, or to now; None before the confirmation."""
        if self.wave.confirmed_at is None:
            return None
        return ((self.wave.finished_at or clock.now()) - self.wave.confirmed_at).total_seconds()

    @property
    def level_now(self) -> int:
        """The first level that is not done; the last level when all are done."""
        unfinished = (level.number for level in self.levels if level.state[0] != "done")
        return next(unfinished, self.levels[-1].number)


def _count(jobs: Sequence[RebuildJob]) -> Counts:
    states = [job.state for job in jobs]
    return Counts(
        total=len(jobs),
        done=sum(state in GOOD_STATES for state in states),
        busy=sum(state in BUSY_STATES for state in states),
        failed=states.count(State.FAILED),
        blocked=states.count(State.BLOCKED),
        cancelled=states.count(State.CANCELLED),
        fixed=len(_different(job.fixed for job in jobs)),
        introduced=len(_different(job.introduced for job in jobs)),
        would_fix=len(_different(job.would_fix for job in jobs)),
    )


def _state_of(job: RebuildJob, wave: RebuildWave) -> str:
    if job.state == State.DONE:
        return "rebased" if job.method == RebuildJob.Method.REBASE else "rebuilt"
    if job.state == State.WAITING and wave.state == RebuildWave.State.PLANNED:
        return "planned"
    return job.state


def _seconds_of(job: RebuildJob) -> float | None:
    if job.started_at is None:
        return None
    end: datetime | None = job.finished_at or (clock.now() if job.state in BUSY_STATES else None)
    return (end - job.started_at).total_seconds() if end is not None else None


def fingerprint(actor: User, wave: RebuildWave) -> str:
    """Return an entity tag for the page of a wave; three cheap queries, so that polling is cheap.

    While the wave is running, the tag also changes every ten seconds, because the page shows elapsed times.
    """
    jobs = jobs_visible_to(actor, wave).order_by("pk")
    states = list(jobs.values_list("pk", "state", "attempts", "finished_at", "would_fix__isnull"))
    busy = [row[0] for row in states if row[1] in BUSY_STATES]
    lines = JobLogLine.objects.filter(job__in=Job.objects.filter(kind=REBUILD.name, subject_id__in=busy))
    last = lines.aggregate(last=Max("pk"))["last"]
    moment = int(clock.now().timestamp() // 10) if wave.state == RebuildWave.State.RUNNING else 0
    text = repr((wave.pk, wave.state, wave.finished_at, states, last, moment, actor.pk))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def row_of(job: RebuildJob) -> JobRow:
    """Return the row of one image of a wave, without its log and offers."""
    return JobRow(job, _state_of(job, job.wave), _seconds_of(job))


def wave_detail(actor: User, wave: RebuildWave, *, whole_level: int = 0) -> WaveDetail:
    """Return the data of the page of `wave` for `actor`; a fixed number of queries for any number of images.

    A long level shows only its most urgent rows, unless it is `whole_level`.
    """
    jobs = list(jobs_visible_to(actor, wave).only(*_SHOWN))
    rows = [JobRow(job, _state_of(job, wave), _seconds_of(job)) for job in jobs]
    _add_tails(rows)
    _add_offers(actor, rows)
    levels: dict[int, LevelRow] = {}
    for row in rows:
        level = row.job.level
        levels.setdefault(level, LevelRow(level, [], is_whole=level == whole_level)).rows.append(row)
    tag = tags_to_choose(wave.repository).filter(image=wave.new_base).order_by("-updated_at").first()
    methods = [row.job.method for row in rows]
    return WaveDetail(
        wave=wave,
        tag=tag.name if tag is not None else "",
        levels=list(levels.values()),
        counts=_count(jobs),
        skipped=skipped_visible_to(actor, wave),
        base_diff=_base_diff(wave),
        expected=_expected(jobs) if wave.state == RebuildWave.State.PLANNED else [],
        why_not=why_not_steer(actor, wave),
        why_not_confirm=why_not_confirm(actor, wave) if wave.state == RebuildWave.State.PLANNED else None,
        methods={"rebase": methods.count("rebase"), "build": methods.count("build")},
        teams=sorted({row.job.repository.team.slug for row in rows}),
    )


def _base_diff(wave: RebuildWave) -> FindingsDiff | None:
    if wave.old_base is None:
        return None
    platforms = [*platform_ids(wave.old_base), *platform_ids(wave.new_base)]
    if Image.objects.filter(pk__in=platforms, scanned_at=None).exists():
        return None  # unknown packages have no findings, but that is not a pass
    return diff_of_images(wave.old_base, wave.new_base)


def _expected(jobs: Sequence[RebuildJob]) -> list[Expected]:
    """Return the advisories that the jobs would fix, worst severity first, then by number of images; one query."""
    images = Counter(osv_id for job in jobs for osv_id in job.would_fix or ())
    severities: dict[str, str] = {}
    for osv_id, severity in Advisory.objects.filter(vulnerability__in=images).values_list("vulnerability", "severity"):
        severities[osv_id] = min(severity, severities.get(osv_id, severity), key=SEVERITIES.index)
    expected = [Expected(osv_id, severities.get(osv_id, "unknown"), count) for osv_id, count in images.items()]
    return sorted(expected, key=lambda row: (SEVERITIES.index(row.severity), -row.image_count, row.osv_id))


def _add_tails(rows: Iterable[JobRow]) -> None:
    """Add the end of the log to the rows that are busy or failed; two queries."""
    rows_by_id = {row.job.pk: row for row in rows if row.is_busy or row.job.state == State.FAILED}
    runs = Job.objects.filter(kind=REBUILD.name, subject_id__in=rows_by_id).order_by("subject_id", "-pk")
    latest = list(runs.distinct("subject_id").values_list("pk", "subject_id"))[:TAILS_MAX]
    if not latest:
        return
    tails = [JobLogLine.objects.filter(job=pk).order_by("-pk")[:TAIL_LINES] for pk, _ in latest]
    subject = dict(latest)
    # One query with a limit for each log: a single filter over all logs could not use the index for these limits.
    lines = tails[0] if len(tails) == 1 else tails[0].union(*tails[1:], all=True)
    for line in sorted(lines, key=lambda line: line.pk):
        rows_by_id[subject[line.job_id]].log.append(line)


def _add_offers(actor: User, rows: Iterable[JobRow]) -> None:
    """Add to each finished row the environments with an older image of it; a fixed number of queries."""
    done = {row.job.pk: row for row in rows if row.has_result}
    visible = promotions_visible_to(actor).filter(image__in=[row.job.new_image_id for row in done.values()])
    requests = {(row.repository_id, row.image_id, row.environment_id): row for row in visible.order_by("pk")}
    for key, slots in slots_to_update([row.job for row in done.values()], actor=actor).items():
        job = done[key].job
        for slot in slots:
            request = requests.get((job.repository_id, job.new_image_id or 0, slot.environment_id))
            done[key].offers.append(Offer(slot.environment, slot.tag, request))


def rebuilt_as(repository: Repository, image: Image, actor: User) -> dict[str, Any]:
    """Return the rebuilds that made or replaced an image, for its page.

    `made` is the job that built the image, `renewed` the job that rebuilt it, `seen_waves` the ids of their visible
    waves.
    """
    jobs = RebuildJob.objects.filter(repository=repository, state=State.DONE).filter(
        Q(new_image=image) | Q(old_image=image)
    )
    finished = list(jobs.select_related("wave", "old_image", "new_image").order_by("pk"))
    wave_ids = [job.wave_id for job in finished]
    visible = set(waves_visible_to(actor).filter(pk__in=wave_ids).values_list("pk", flat=True))
    built_by = next((job for job in reversed(finished) if job.new_image_id == image.pk), None)
    rebuilt_by = next((job for job in reversed(finished) if job.old_image_id == image.pk), None)
    return {"made": built_by, "renewed": rebuilt_by, "seen_waves": visible}
