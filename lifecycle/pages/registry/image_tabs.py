"""The tabs of the image page: what each shows beside what all show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Case, F, IntegerField, Max, Q, Value, When
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.advisories.exploits import exploit_feeds, with_exploits
from lifecycle.audit.models import AuditEvent
from lifecycle.authority.queries import (
    environments_visible_to,
    images_visible_to,
    repositories_open_to,
)
from lifecycle.authority.rights import may
from lifecycle.core import clock
from lifecycle.core.paging import keyset_page
from lifecycle.core.severities import COUNTED
from lifecycle.evidence.at_ingest import verdict_at_ingest, why_wait
from lifecycle.evidence.contents import contents_of
from lifecycle.evidence.due import due_of_matches
from lifecycle.evidence.types import full_name
from lifecycle.evidence.verdicts import judge
from lifecycle.evidence.waived import waivers_of
from lifecycle.inventory.queries import running_of
from lifecycle.lineage.models import Derivation
from lifecycle.pages.lineage.page_queries import EVIDENCE_WORDS, levels_below
from lifecycle.pages.promotion.page_queries import targets_for
from lifecycle.pages.registry import page_queries
from lifecycle.pages.registry.configuration import configuration_of
from lifecycle.pages.registry.contents import groups_of
from lifecycle.pages.registry.findings import (
    LayerShare,
    findings_of,
    statements_for,
    unknown_findings_of,
    waived_findings_of,
)
from lifecycle.pages.registry.forms import MetadataForm, SbomForm
from lifecycle.pages.registry.packages import add_reasons, packages_of, unjudged
from lifecycle.pages.requests import chosen, cursors, reader, sort_of
from lifecycle.pages.trust.page_queries import signatures_shown
from lifecycle.pentests.access import findings_for_image
from lifecycle.promotion.gates import BEFORE
from lifecycle.registry.models import Image, Layer, Repository
from lifecycle.registry.queries import Location, locations_of, metadata_of
from lifecycle.runtime.breakglass import open_debts_of
from lifecycle.sbom.blind_spots import blind_spots
from lifecycle.sbom.brought import why_not_send
from lifecycle.sbom.differences import differences
from lifecycle.sbom.end_of_life import supports_of
from lifecycle.sbom.lists import own_list
from lifecycle.sbom.models import Sbom
from lifecycle.trust.sboms import sources_of

_RUNNING_SHOWN: Final = 100
_DEBTS_SHOWN: Final = 20
_SEARCH_MAX: Final = 200  # characters; the name of a package is shorter
_HIDDEN_BASE: Final = "a base you cannot see"


@dataclass(frozen=True, slots=True)
class BaseLine:
    """A base of the image, with its evidence and its lag."""

    derivation: Derivation
    place: Location | None
    lag: page_queries.Lag | None
    evidence: str
    layer_count: int  # number of the image's first layers that come from the base


def bases_of(image: Image, visible: Any, user: User) -> list[BaseLine]:
    """Return up to 5 bases of `image` that the reader can see, the one with the most layers first, with their lag."""
    edges = list(
        Derivation.objects.filter(derived=image, base__in=images_visible_to(user))
        .select_related("base")
        .order_by("-base__layer_count", "id")[:5]
    )
    locations = locations_of([edge.base_id for edge in edges], visible)
    return [
        BaseLine(
            edge,
            locations.get(edge.base_id),
            page_queries.lag_of(edge.base, visible),
            ", ".join(EVIDENCE_WORDS.get(kind, kind) for kind in edge.evidence),
            edge.base.layer_count if Derivation.Evidence.LAYERS in edge.evidence else 0,
        )
        for edge in edges
    ]


def hidden_depth_of(image: Image, user: User) -> int | None:
    """Return how many of the first layers come from a base that the reader cannot see; None without such a base.

    The reader learns only that there is a base, and which findings come from it: else the page would blame the image
    itself. No name, digest, list or total shows it.
    """
    edges = list(Derivation.objects.filter(derived=image).values_list("base", "base__layer_count", "evidence"))
    # Two questions: PostgreSQL answers one with `NOT IN` by listing every image that the reader can see.
    visible = set(images_visible_to(user).filter(pk__in=[base for base, *_ in edges]).values_list("pk", flat=True))
    depths = [
        layer_count if Derivation.Evidence.LAYERS in evidence else 0
        for base, layer_count, evidence in edges
        if base not in visible
    ]
    return max(depths, default=None)


def _base_layer_count(bases: list[BaseLine]) -> int:
    return max((base.layer_count for base in bases), default=0)


def who_can_fix(shares: list[LayerShare], bases: list[BaseLine], own: str, hidden_depth: int | None) -> dict[str, Any]:
    """Return the parts of the who-can-fix bar: findings from the base, from the image itself, and of unknown origin."""
    depth = _base_layer_count(bases)
    name = next((base.place.repository.name for base in bases if base.place and base.layer_count), "the base image")
    inherited = sum(
        share.count for share in shares if share.layer_position is not None and share.layer_position < depth
    )
    unplaced = sum(share.count for share in shares if share.layer_position is None)
    hidden = sum(
        share.count
        for share in shares
        if share.layer_position is not None and depth <= share.layer_position < (hidden_depth or 0)
    )
    mine = sum(share.count for share in shares) - inherited - hidden - unplaced
    parts = [("base", f"{inherited} {name}", inherited), ("base2", f"{hidden} {_HIDDEN_BASE}", hidden)]
    parts.append(("own", f"{mine} {own}", mine))
    parts.append(("unknown", f"{unplaced} layer unknown", unplaced))
    return {
        "total": inherited + hidden + mine + unplaced,
        "parts": [part for part in parts if part[2]],
        "inherited": inherited,
        "hidden": hidden,
        "mine": mine,
        "unplaced": unplaced,
        "base": name,
    }


def _overview_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the creation time of the latest SBOM that decides, and until when parts of the image are supported."""
    used = Sbom.objects.filter(Q(package_list=None) | Q(package_list__is_used=True), image=context["image"])
    image: Image = context["image"]
    return {
        "newest_sbom_at": used.aggregate(at=Max("created_at"))["at"],
        "supports": supports_of([image])[image.pk],
    }


def _configuration_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the platform that is shown."""
    repository: Repository = context["repository"]
    return {
        "configuration": configuration_of(context["image"]),
        "metadata": metadata_of(repository, context["top"]),
        "metadata_form": MetadataForm(),
        "metadata_digest": context["top"].digest,
        "may_amend": may(reader(request), Verb.IMAGE_AMEND, repository=repository, environment=repository.environment),
    }


def _lineage_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of images that are built on the image, level by level."""
    return {"levels": levels_below(context["image"], repositories_open_to(reader(request)))}


def _packages_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the packages, each with its origin, filtered by name with `?q=`, or those not judged with `?unjudged=`."""
    contents = packages_of(context["image"])
    text = request.GET.get("q", "").strip()[:_SEARCH_MAX]
    if text:
        contents = contents.filter(Q(name__icontains=text) | Q(source_name__icontains=text))
    shows_unjudged = request.GET.get("unjudged") == "yes"
    if shows_unjudged:
        contents = unjudged(contents)
    sort, order = sort_of(request, {"name": ("name", "id"), "type": ("type", "name", "id")})
    page = keyset_page(contents, order, **cursors(request))
    add_reasons(page.rows)
    for package in page.rows:
        package.brought_by = _layer_words(context, package.layer_position)  # type: ignore[attr-defined]  # for the template alone
    return {"sort": sort, "page": page, "q": text, "unjudged": shows_unjudged}


def _files_tab(_: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return what the check of the files found in the platform that is shown, each with its origin."""
    image: Image = context["image"]
    contents = contents_of([image.pk])[image.pk]
    inherited = max(_base_layer_count(context["bases"]), context["hidden_depth"] or 0)

    def origin_of(layer: int) -> dict[str, str]:
        words = _layer_words(context, layer)
        return words | {"who": f"in base {words['who'].removeprefix('a base ')}"} if layer < inherited else words

    return {"contents": contents, "groups": groups_of(contents, origin_of)}


def _findings_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the findings, filtered by severity, fix and exploit, each with its origin, and the counts of all."""
    image: Image = context["image"]
    rows = findings_of(image)
    severity, fix = chosen(request, "severity", COUNTED), chosen(request, "fix", ("yes",))
    if severity:
        wanted = ["unknown", "none"] if severity == "unknown" else [severity]
        rows = rows.filter(severity__in=wanted)
    text = request.GET.get("q", "").strip()[:_SEARCH_MAX]
    if text:
        rows = rows.filter(Q(package__name__icontains=text) | Q(package__source_name__icontains=text))
    if fix:
        rows = rows.exclude(fixed_version="")
    rows = with_exploits(rows).annotate(
        is_exploited=Case(When(exploited_on=None, then=Value(0)), default=Value(1), output_field=IntegerField()),
        epss_or_none=Coalesce("epss", Value(-1.0)),  # a page needs an order without null
    )
    exploited = chosen(request, "exploited", ("yes",))
    if exploited:
        rows = rows.exclude(exploited_on=None)
    orders = {
        "severity": ("-rank", "id"),
        "package": ("package__name", "id"),
        "exploit": ("-is_exploited", "-epss_or_none", "id"),
    }
    sort, order = sort_of(request, orders)
    page = keyset_page(rows, order, **cursors(request))
    due = due_of_matches(image, page.rows)
    said = statements_for(image, reader(request))
    waivers = waivers_of(image, reader(request), also=[context["top"]])
    for match in page.rows:
        match.brought_by = _layer_words(context, match.layer_position)
        match.due = due.get(match.pk)
        key = (match.package_id, match.advisory.vulnerability)
        name = full_name(match.package.namespace, match.package.name)
        match.waivers = [each for each in waivers if each.covers(match.advisory.vulnerability, name)]
        match.vex, match.advice = said.of_finding.get(key), said.advice.get(key)
    waived = waived_findings_of(image)
    for match in waived:
        name = full_name(match.package.namespace, match.package.name)
        covering = [each for each in waivers if each.covers(match.advisory.vulnerability, name)]
        match.waivers = [each for each in covering if not each.environment]  # type: ignore[attr-defined]  # for the template
    home = context["repository"].source or context["repository"]
    counts = [(name, getattr(image, f"{name}_count")) for name in COUNTED]
    return {
        "page": page,
        "severity": severity,
        "has_fix": bool(fix),
        "only_exploited": bool(exploited),
        "exploit_feeds": exploit_feeds(),
        "now": clock.now(),
        "sort": sort,
        "q": text,
        "counts": counts,
        "unknown": unknown_findings_of(image),
        "suppressed": said.suppressed,
        "waived": waived,
        "home": home,
        "may_decide": bool(may(reader(request), Verb.WAIVER_REQUEST, repository=home)),
    }


def _promotions_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the environments that the image can be promoted to; none in the repository of an environment."""
    repository: Repository = context["repository"]
    targets = targets_for(reader(request), repository, context["top"]) if repository.source_id is None else []
    return {"places": targets}


def _policy_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return what the policies say about the image for the environment in the URL, else for the first of the team."""
    row = context["repository"]
    source = row.source or row
    places = list(environments_visible_to(reader(request)).filter(team=row.team_id).order_by("position")[:50])
    slug = chosen(request, "environment", [place.slug for place in places])
    wanted = slug or (row.environment.slug if row.environment else "")
    place = next((item for item in places if item.slug == wanted), places[0] if places else None)
    at_ingest = verdict_at_ingest(context["top"], source) if context["is_granted"] else None
    return {
        "places": places,
        "place": place,
        "verdict": judge(context["top"], source, place, BEFORE) if place else None,
        "at_ingest": at_ingest,
        "why_wait": why_wait(context["top"]) if at_ingest is not None and at_ingest.judged_at is None else "",
    }


def _history_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the image's tag events, its SBOMs, and its audit events if the reader can read them."""
    events = (
        AuditEvent.objects.filter(digest=context["top"].digest, team=context["repository"].team)
        .select_related("actor")
        .order_by("-id")[:50]
    )
    may_read = may(reader(request), Verb.AUDIT_READ, repository=context["repository"])
    return {
        "events": page_queries.image_history(context["repository"], context["top"])[:50],
        "audit_events": events if may_read else None,
        "sboms": Sbom.objects.filter(image=context["image"]).defer("document").order_by("-id"),
    }


def _signatures_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the signatures of the image and of its indexes, and whether its base is trusted."""
    return signatures_shown(reader(request), context["repository"], context["image"], context["top"])


def _sboms_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the SBOMs of the platform that is shown, and what differs between ours and the one chosen."""
    user, image = reader(request), context["image"]
    sources = sources_of(user, [image])
    brought_ones = [source for source in sources if source.row is not None and not source.is_own]
    own = own_list(image.pk) if brought_ones else None
    wanted = chosen(request, "sbom", [str(source.id) for source in brought_ones])
    compared = next((source for source in brought_ones if str(source.id) == wanted), None)
    compared = compared or next((source for source in brought_ones if source.is_used), None)
    compared = compared or next(iter(brought_ones), None)
    return {
        "sources": sources,
        "blind_spots": blind_spots([image])[image.pk],
        "compared": compared,
        "difference": differences(compared.row, own) if compared and compared.row and own else None,
        "has_own": own is not None,
        "why_not_send": why_not_send(user, image),
        "sbom_form": SbomForm(),
    }


def _runtime_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return where the image runs and ran, what runs now first."""
    user = reader(request)
    rows = running_of(context["top"], user).order_by(F("until").desc(nulls_first=True), "-id")
    debts = open_debts_of(context["top"], user).order_by("pk")
    return {"running": rows[:_RUNNING_SHOWN], "debts": debts[:_DEBTS_SHOWN]}


def _pentests_tab(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the pen-test findings that count for the platform that is shown."""
    return {"pentests": findings_for_image(reader(request), context["image"])}


def _layer_words(context: dict[str, Any], position: int | None) -> dict[str, str]:
    """Return the origin of a layer and its position, in words. The origin decides who can fix its findings."""
    if position is None:
        return {"who": "unknown", "which": "layer not in SBOM"}
    layers: list[Layer] = context["layers"]
    bases: list[BaseLine] = context["bases"]
    which = f"layer {position + 1} of {len(layers)}" if layers else f"layer {position + 1}"
    for base in reversed(bases):  # the layer comes from the base with the fewest layers that includes it
        if position < base.layer_count:
            return {"who": base.place.label if base.place else "a base image", "which": which}
    if position < (context["hidden_depth"] or 0):
        return {"who": _HIDDEN_BASE, "which": which}
    return {"who": f"{context['repository'].name}, own layer", "which": which}


# Returns the context of each tab of the image page. The argument is the context that all tabs share.
IMAGE_TABS: Final[dict[str, Callable[[HttpRequest, dict[str, Any]], dict[str, Any]]]] = {
    "overview": _overview_tab,
    "configuration": _configuration_tab,
    "lineage": _lineage_tab,
    "packages": _packages_tab,
    "findings": _findings_tab,
    "pentests": _pentests_tab,
    "files": _files_tab,
    "promotions": _promotions_tab,
    "signatures": _signatures_tab,
    "sboms": _sboms_tab,
    "runtime": _runtime_tab,
    "policy": _policy_tab,
    "history": _history_tab,
}
