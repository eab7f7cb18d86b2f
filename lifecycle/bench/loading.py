"""Fast loading of a generated data set into the database: packages with the services, all other rows with COPY.

The benches that measure lineage and risk compute them with the services.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

import orjson
import psycopg2
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import connection, transaction
from django.db.models import Field, JSONField, Max, Model
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT

from accounts import tokens
from accounts.models import ApiToken, Role, Team, User
from accounts.queries import system_user
from lifecycle.advisories import services as advisories
from lifecycle.audit.actions import Action
from lifecycle.audit.details_of_images import ImagePushed
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.models import RoleGrant
from lifecycle.bench.dataset import DISTRO, PlannedImage, planned_images, team_slugs
from lifecycle.core import clock
from lifecycle.environments.models import Environment
from lifecycle.lineage import services as lineage
from lifecycle.oci.chains import chain_ids
from lifecycle.promotion.models import PromotionRequest
from lifecycle.registry.models import Image, Layer, Repository, RepositoryImage, Tag, TagEvent
from lifecycle.registry.services import ensure_managed_registry
from lifecycle.sbom import services as sbom
from lifecycle.sbom.models import ImageInventory
from lifecycle.sbom.packages import PackageKey, key_of

BATCH: Final = 2000  # images in memory at once
DEMO_ADVISORIES: Final = settings.BASE_DIR / "lifecycle" / "advisories" / "data" / "demo"
_PROMOTED_EVERY: Final = 10  # one image in ten has a promotion request

Note = Callable[[str], None]


@dataclass(slots=True)
class Dock:
    """The ids of the loaded rows, and the tokens of the users."""

    image_ids: list[int] = field(default_factory=list)
    package_ids: list[int] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)  # bearer tokens by user name


class Columns:
    """Rows of one model for COPY: values for the named columns, defaults for the others, and generated ids."""

    def __init__(self, model: type[Model], *names: str) -> None:
        self.model = model
        self._last = model._default_manager.aggregate(last=Max("pk"))["last"] or 0
        fields = {item.attname: item for item in model._meta.concrete_fields}
        given = [fields[name] for name in (model._meta.pk.attname, *names)]
        rest = [item for item in fields.values() if item not in given]
        sample = model()
        self._columns = [str(item.column) for item in (*given, *rest)]
        self._tail = "".join("\t" + _text(_default(item, sample), item) for item in rest)
        self._given = given[1:]
        self._buffer = io.StringIO()

    def add(self, *values: Any) -> int:
        """Add a row with these values for the named columns, and return its id."""
        self._last += 1
        cells = [_text(value, item) for value, item in zip(values, self._given, strict=True)]
        self._buffer.write(f"{self._last}\t" + "\t".join(cells) + self._tail + "\n")
        return self._last

    def flush(self) -> None:
        """Write the added rows to the database."""
        self._buffer.seek(0)
        quote = connection.ops.quote_name
        columns = ", ".join(map(quote, self._columns))
        with connection.cursor() as cursor:
            cursor.copy_expert(f"COPY {quote(self.model._meta.db_table)} ({columns}) FROM STDIN", self._buffer)
        self._buffer = io.StringIO()

    def settle(self) -> None:
        """Set the sequence of the table to the last id."""
        meta = self.model._meta
        as_owner(
            "SELECT setval(pg_get_serial_sequence(%s, %s), greatest(%s, 1))",
            [meta.db_table, meta.pk.column, self._last],
        )


def _default(item: Field[Any, Any], sample: Model) -> Any:
    if getattr(item, "auto_now_add", False) or getattr(item, "auto_now", False):
        return clock.now()
    return getattr(sample, item.attname)


def _text(value: Any, item: Field[Any, Any]) -> str:
    """Return `value` in COPY's text format."""
    if value is None:
        return "\\N"
    if isinstance(item, JSONField):
        return _escaped(orjson.dumps(value).decode())
    if isinstance(value, str):
        return _escaped(value)
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    if isinstance(item, ArrayField):
        return _escaped("{" + ",".join(f'"{part}"' for part in value) + "}")
    return str(value)  # numbers, times and booleans: PostgreSQL reads Python's format


def _escaped(text: str) -> str:
    if "\\" in text or "\t" in text or "\n" in text or "\r" in text:
        return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return text


def batches(images: Iterable[PlannedImage], size: int = BATCH) -> Iterator[list[PlannedImage]]:
    """Yield lists of at most `size` images."""
    rest = iter(images)
    while batch := list(islice(rest, size)):
        yield batch


def load(count: int, *, note: Note = lambda _: None) -> Dock:
    """Load `count` images with users, tags, promotions and audit events, but without lineage and matches."""
    dock = Dock()
    note(f"loading {count} images")
    loader = _Loader(dock, count)
    for batch in batches(planned_images(count)):
        with transaction.atomic():
            loader.add(batch)
    loader.settle()
    people(dock)
    as_owner("VACUUM ANALYZE")
    return dock


def complete(dock: Dock, *, note: Note = lambda _: None) -> None:
    """Compute what workers compute after a push: derivations, matches with the project's advisories, and risk."""
    note("deriving")
    lineage.derive(dock.image_ids)
    note("matching the project's advisories")
    advisories.sync_feed(str(DEMO_ADVISORIES), feed_name="demo", actor=system_user())
    advisories.match_packages(dock.package_ids)
    as_owner("VACUUM ANALYZE")


def as_owner(statement: str, parameters: Sequence[Any] = ()) -> None:
    """Run a statement that the application role cannot run: set a sequence, or vacuum."""
    link = psycopg2.connect(settings.DATABASE_OWNER_URL)
    link.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
    try:
        with link.cursor() as cursor:
            cursor.execute(statement, parameters)
    finally:
        link.close()


def people(dock: Dock) -> None:
    """Create the users of the API bench: one who sees everything, one who sees one repository, and an admin."""
    teams = {team.slug: team for team in Team.objects.all()}
    viewer, auditor, owner = (Role.objects.get(slug=slug) for slug in ("viewer", "auditor", "owner"))
    wide = User.objects.create_user("wide")
    narrow = User.objects.create_user("narrow")
    admin = User.objects.create_user("admin", is_superuser=True)
    for team in teams.values():
        RoleGrant.objects.create(user=wide, role=viewer, team=team)
        RoleGrant.objects.create(user=wide, role=auditor, team=team)
    RoleGrant.objects.create(user=wide, role=owner, team=teams["team-01"])
    corner = Repository.objects.filter(team=teams[team_slugs()[-1]]).order_by("-name").first()
    pattern = corner.name if corner else "nothing"
    RoleGrant.objects.create(user=narrow, role=viewer, team=teams[team_slugs()[-1]], repository_pattern=pattern)
    RoleGrant.objects.create(user=narrow, role=auditor, team=teams[team_slugs()[-1]])
    for user in (wide, narrow, admin):
        _, text = tokens.create_token(user, kind=ApiToken.Kind.PERSONAL, name="bench")
        dock.tokens[user.username] = text


class _Loader:
    """Stores planned images in batches. It keeps only ids, repositories, packages and inventories in memory."""

    def __init__(self, dock: Dock, count: int) -> None:
        self.dock = dock
        self.registry = ensure_managed_registry()
        self.actor = system_user()
        self.packages: dict[PackageKey, int] = {}
        self.inventories: dict[str, int] = {}
        self.repositories: dict[str, Repository] = {}
        self.start = clock.now() - timedelta(days=720)
        self.step = timedelta(days=720) / max(count, 1)
        self.teams = {slug: Team.objects.get_or_create(slug=slug, defaults={"name": slug})[0] for slug in team_slugs()}
        self.environments = {
            slug: Environment.objects.create(
                team=team, slug="production", name="Production", position=0, prefix=f"production-{slug}"
            )
            for slug, team in self.teams.items()
        }
        self.images = Columns(
            Image, "digest", "kind", "media_type", "manifest", "config_digest", "config", "os", "architecture",
            "size_bytes", "labels", "diff_chain_id", "digest_chain_id", "layer_count", "created_at", "first_seen_at",
            "scanned_at", "distro", "package_count",
        )  # fmt: skip
        self.layers = Columns(
            Layer, "image_id", "position", "digest", "diff_id", "size_bytes", "created_by", "diff_chain_id",
            "digest_chain_id",
        )  # fmt: skip
        self.members = Columns(RepositoryImage, "repository_id", "image_id", "added_at")
        self.tags = Columns(Tag, "repository_id", "name", "image_id", "updated_at")
        self.events = Columns(TagEvent, "tag_id", "new_image_id", "via", "at")
        self.image_inventories = Columns(ImageInventory, "image_id", "inventory_id", "layer_position")
        self.promotions = Columns(
            PromotionRequest, "image_id", "repository_id", "environment_id", "tag", "state", "requested_by_id",
            "reason", "approve_by", "created_at", "decided_at", "finished_at",
        )  # fmt: skip
        self.audit_events = Columns(
            AuditEvent, "at", "action", "actor_id", "actor_name", "team_id", "subject_kind", "subject_id", "digest",
            "repository", "details", "canonical",
        )  # fmt: skip

    @property
    def _all(self) -> Sequence[Columns]:
        return (
            self.images, self.layers, self.members, self.tags, self.events, self.image_inventories, self.promotions,
            self.audit_events,
        )  # fmt: skip

    def add(self, batch: Sequence[PlannedImage]) -> None:
        self._add_contents(batch)
        for planned in batch:
            self._add_image(planned)
        for columns in self._all:
            columns.flush()

    def settle(self) -> None:
        for columns in self._all:
            columns.settle()
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE lifecycle_repository r SET updated_at = t.at FROM (SELECT repository_id, max(updated_at) AS at"
                " FROM lifecycle_tag GROUP BY repository_id) t WHERE t.repository_id = r.id"
            )

    def _add_contents(self, batch: Sequence[PlannedImage]) -> None:
        """Store the inventories that no earlier image has, with their package versions."""
        fresh = {
            item.key: item.packages for image in batch for item in image.inventories if item.key not in self.inventories
        }
        keys = {key: {key_of(item): item for item in packages} for key, packages in fresh.items()}
        unknown = [item for packages in keys.values() for key, item in packages.items() if key not in self.packages]
        ids, new = sbom.store_package_versions(unknown)
        self.packages |= ids
        self.dock.package_ids += new
        digests = {key: sbom.inventory_digest(packages) for key, packages in keys.items()}
        stored = sbom.store_inventories({digests[key]: set(packages) for key, packages in keys.items()}, self.packages)
        self.inventories |= {key: stored[digest] for key, digest in digests.items()}

    def _add_image(self, planned: PlannedImage) -> None:
        at = self.start + self.step * planned.number
        diff_chain = chain_ids([layer.diff_id for layer in planned.layers])
        digest_chain = chain_ids([layer.digest for layer in planned.layers])
        config = {
            "os": "linux",
            "architecture": "amd64",
            "config": {"Cmd": ["/usr/bin/service"], "Labels": {"org.opencontainers.image.title": planned.repository}},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in planned.layers]},
        }
        manifest = orjson.dumps(
            {
                "schemaVersion": 2,
                "layers": [{"digest": layer.digest, "size": layer.size_bytes} for layer in planned.layers],
            }
        )
        image_id = self.images.add(
            planned.digest, "manifest", "application/vnd.oci.image.manifest.v1+json", manifest,
            planned.digest, config, "linux", "amd64", sum(layer.size_bytes for layer in planned.layers),
            {"org.opencontainers.image.title": planned.repository}, diff_chain[-1], digest_chain[-1],
            len(planned.layers), at, at, at, DISTRO, sum(len(item.packages) for item in planned.inventories),
        )  # fmt: skip
        self.dock.image_ids.append(image_id)
        for position, layer in enumerate(planned.layers):
            self.layers.add(
                image_id, position, layer.digest, layer.diff_id, layer.size_bytes, layer.created_by,
                diff_chain[position], digest_chain[position],
            )  # fmt: skip
        for item in planned.inventories:
            self.image_inventories.add(image_id, self.inventories[item.key], item.layer_position)
        repository = self._repository(planned.repository, at)
        self.members.add(repository.pk, image_id, at)
        tag_id = self.tags.add(repository.pk, planned.tag, image_id, at)
        self.events.add(tag_id, image_id, "push", at)
        self._add_history(planned, image_id, repository, at)

    def _add_history(self, planned: PlannedImage, image_id: int, repository: Repository, at: datetime) -> None:
        details = ImagePushed(tag=planned.tag, via="push", kind="manifest", replaced="").as_json()
        self.audit_events.add(
            at, Action.IMAGE_PUSHED.value, self.actor.pk, self.actor.username, repository.team_id, "image", image_id,
            planned.digest, repository.name, details, orjson.dumps(details),
        )  # fmt: skip
        if planned.number % _PROMOTED_EVERY == 0:
            is_open = planned.number % (20 * _PROMOTED_EVERY) == 0
            self.promotions.add(
                image_id, repository.pk, self.environments[repository.team.slug].pk, planned.tag,
                "open" if is_open else "succeeded", self.actor.pk, "A release.", at + timedelta(days=7), at,
                None if is_open else at, None if is_open else at,
            )  # fmt: skip

    def _repository(self, name: str, at: datetime) -> Repository:
        repository = self.repositories.get(name)
        if repository is None:
            repository = Repository.objects.create(
                registry=self.registry, name=name, family=name, team=self.teams[name.partition("/")[0]]
            )
            Repository.objects.filter(pk=repository.pk).update(updated_at=at)
            self.repositories[name] = repository
        return repository
