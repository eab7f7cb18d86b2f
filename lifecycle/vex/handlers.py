"""Decisions end by themselves, people are told about them, and attestations of images and feeds are read."""

from __future__ import annotations

from lifecycle import events
from lifecycle.core import locks
from lifecycle.events import subscribe
from lifecycle.jobs.handlers import JobRun, Postponed, handler
from lifecycle.jobs.schedule import every
from lifecycle.vex import attached, feeds, services
from lifecycle.vex.kinds import SYNC_VEX_FEED
from lifecycle.vex.models import VexFeed, VexStatement
from lifecycle.vex.telling import tell_about_decision

_AGAIN_AFTER_S = 30.0


@every(30, "vex")
def end_decisions() -> None:
    """End decisions whose time is over."""
    services.end_due()


@every(60, "vex feeds")
def queue_due_feeds() -> None:
    """Queue the feeds whose time has come."""
    feeds.queue_due_feeds()


@handler(SYNC_VEX_FEED)
def sync_feed(run: JobRun) -> None:
    """Read a feed. A removed one is no error."""
    with locks.alone(f"vex-feed:{run.job.subject_id}") as is_alone:
        if not is_alone:
            raise Postponed("Another run of this feed is not finished.", seconds=_AGAIN_AFTER_S)
        feed = VexFeed.objects.select_related("team", "added_by", "trusted_by").filter(pk=run.job.subject_id).first()
        if feed is None:
            return
        accept_smaller = bool(run.job.payload.get("accept_smaller"))
        result = feeds.run_sync(feed, actor=run.job.actor, progress=run.progress, accept_smaller=accept_smaller)
        run.log(", ".join(f"{name} {value}" for name, value in result.items() if name != "problems"))
        for problem in result["problems"]:
            run.log(problem)


@subscribe(events.AttestationsRead)
def read_attestations(event: events.AttestationsRead) -> None:
    """Store the VEX attestations of an image."""
    attached.sync(event.image_id)


@subscribe(events.TrustChanged)
def trust_again(event: events.TrustChanged) -> None:
    """Look again at whom to trust: signers of documents, and owners of bases, who decide for what is built on them."""
    attached.trust_again()
    decisions = VexStatement.objects.filter(state=VexStatement.State.LIVE, document=None).exclude(scope="all")
    if ids := tuple(decisions.order_by("pk").values_list("pk", flat=True)):
        events.publish(events.VexChanged(ids))


@subscribe(events.AuditRecorded)
def tell_people(event: events.AuditRecorded) -> None:
    """Tell those who can approve a decision, and its author, what happened."""
    tell_about_decision(event)
