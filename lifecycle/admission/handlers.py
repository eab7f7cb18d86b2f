"""Notes every change of what reviews are answered from, in the transaction of the change."""

from __future__ import annotations

from typing import Final

from lifecycle import events
from lifecycle.admission.models import AdmissionEpoch, AdmissionVerdict
from lifecycle.events import subscribe

_ACTIONS: Final = ("promotion.succeeded", "promotion.rejected", "registry.added", "registry.removed", "tag.deleted")


def bump() -> None:
    """Note that the snapshot is out of date."""
    AdmissionEpoch.objects.create()


@subscribe(events.ClusterChanged)
def cluster_changed(event: events.ClusterChanged) -> None:
    """Renew the snapshot after a change of settings, bindings or secrets."""
    bump()


@subscribe(events.QuarantineChanged)
def quarantine_changed(event: events.QuarantineChanged) -> None:
    """Renew the snapshot when a quarantine begins or ends."""
    bump()


@subscribe(events.DerivationsChanged)
def derivations_changed(event: events.DerivationsChanged) -> None:
    """Renew the snapshot when images are found to be built on others: a quarantine may cover them."""
    bump()


@subscribe(events.TagMoved)
def tag_moved(event: events.TagMoved) -> None:
    """Renew the snapshot after a push."""
    bump()


@subscribe(events.PlacesChanged)
def places_changed(event: events.PlacesChanged) -> None:
    """Renew the snapshot when images come into a repository or leave one."""
    bump()


@subscribe(events.ImageIngested)
def image_ingested(event: events.ImageIngested) -> None:
    """Renew the snapshot when a digest becomes known."""
    bump()


@subscribe(events.BaseDeclared)
def index_stored(event: events.BaseDeclared) -> None:
    """Renew the snapshot when an index becomes known."""
    bump()


@subscribe(events.ImagesImported)
def images_imported(event: events.ImagesImported) -> None:
    """Renew the snapshot after an import."""
    bump()


@subscribe(events.PolicyChanged)
def policy_changed(event: events.PolicyChanged) -> None:
    """Judge again by the rules at admission where they changed, and renew the snapshot."""
    rows = AdmissionVerdict.objects.filter(is_due=False)
    if event.environment_id is not None:
        rows = rows.filter(environment=event.environment_id)
    elif event.team_id is not None:
        rows = rows.filter(environment__team=event.team_id)
    rows.update(is_due=True)
    bump()


@subscribe(events.AuditRecorded)
def action_recorded(event: events.AuditRecorded) -> None:
    """Renew the snapshot after promotions, and when a registry of ours is added or removed."""
    if event.action in _ACTIONS:
        bump()
