"""Template tags for findings: severities, what is known of an image, and where to decide about one.

Functions instead of includes, as in `gravingdock.py`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

from django import template
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from lifecycle.core.severities import COUNTED, SEVERITIES
from lifecycle.evidence.judgement import Judgement, Known, OfIndex, judgement_of, judgement_of_index
from lifecycle.pages.templatetags.gravingdock import chip, icon, sentence

register = template.Library()


@register.simple_tag
def vex_new(repository: Any, image: Any, match: Any) -> str:
    """Return the address of the form that decides about a finding, filled in."""
    query = {
        "vulnerability": match.advisory.vulnerability,
        "package": match.package.purl,
        "repository": repository.name,
        "digest": image.digest,
        "scope": "digest",
    }
    return f"{reverse('lifecycle:vex-new')}?{urlencode(query)}"


@register.simple_tag
def chip_severity(severity: str) -> SafeString:
    """Return the chip of a severity, with the shape of that severity."""
    level = severity if severity in SEVERITIES else "unknown"
    return chip(level, f"severity-{level}", level.capitalize())


@register.filter
def advisory_links(osv_id: str) -> list[tuple[str, str]]:
    """Return (label, address) of the public pages about an advisory: OSV, and for a CVE also NVD."""
    name = quote(osv_id, safe="")
    links = [("OSV", f"https://osv.dev/vulnerability/{name}")]
    if osv_id.startswith("CVE-"):
        links.append(("NVD", f"https://nvd.nist.gov/vuln/detail/{name}"))
    if osv_id.startswith("GHSA-"):
        links.append(("GitHub", f"https://github.com/advisories/{name}"))
    return links


@register.simple_tag
def severity_count(severity: str, count: int) -> SafeString:
    """Return the shape and the count of one severity, and its name for screen readers."""
    return _severity_count(severity, count, icon(f"severity-{severity}"))


@lru_cache(maxsize=4096)
def _severity_count(severity: str, count: int, shape: SafeString) -> SafeString:
    return format_html(
        '<span class="sev sev-{0}" title="{1} {0}">{2}{1}<span class="sr-only"> {0}</span></span>',
        severity,
        count,
        shape,
    )


@register.filter
def judgement(image: Any) -> Judgement:
    """Return what is known of the findings of an image: `state`, `unjudged_count`, `why`."""
    return judgement_of(image)


@register.simple_tag
def risk(image: Any) -> SafeString:
    """Return the stored counts of an image by severity, without zeros, or what is unknown.

    Only an image of which every package was judged says "no open findings". A quarantine comes first, where the page
    asked for it with `add_covers`.
    """
    if image is None:
        return format_html('<span class="quiet">{}</span>', "no image")
    mark = quarantine_mark(image)
    return format_html("{} {}", mark, _findings_chips(image)) if mark else _findings_chips(image)


@register.simple_tag
def quarantine_mark(image: Any) -> SafeString | str:
    """Return the chip of a quarantined image; "" for another one."""
    covers = getattr(image, "covers", None)  # set by `add_covers`
    if not covers:
        return ""
    return format_html(
        '<span class="chip chip-bad" title="{}">{}{}</span>', covers[0].words, icon("octagon-x"), "Quarantined"
    )


def _findings_chips(image: Any) -> SafeString:
    if image.kind == "index":
        entries = getattr(image, "platform_entries", None)  # set by `add_platforms`
        if entries is None:
            return format_html('<span class="quiet">{}</span>', "index: see each platform")
        return _risk_of_index(judgement_of_index(entries))
    known = judgement_of(image)
    if known.state == Known.NONE:
        return format_html('<span class="good">{} no open findings</span>', icon("check", css="icon-sm"))
    return _risk_chips(image, known)


def _risk_of_index(index: OfIndex) -> SafeString:
    words = f"on the worst of {index.platform_count} platforms" if index.platform_count > 1 else "on its one platform"
    if index.judgement.state == Known.NONE:
        text = f"no open findings on {index.platform_count} platform{'s' if index.platform_count > 1 else ''}"
        return format_html('<span class="good">{} {}</span>', icon("check", css="icon-sm"), text)
    chips = _risk_chips(index.worst, index.judgement)
    if not index.judgement.open_count:
        return chips
    return format_html('{} <span class="quiet small">{}</span>', chips, words)


def _risk_chips(image: Any, known: Judgement) -> SafeString:
    """Return the chips of the counts above zero, and of what is unknown."""
    counts = [(severity, getattr(image, f"{severity}_count", 0)) for severity in COUNTED]
    shown = [severity_count(severity, count) for severity, count in counts if count and known.open_count]
    if known.why:
        shown.append(_unknown_chip(known))
    return format_html(
        '<span class="sevs">{}</span>',
        format_html_join("", "{}", ((part,) for part in shown)),
    )


def _unknown_chip(known: Judgement) -> SafeString:
    """Return the dashed chip of what is unknown: a short text, and all of it as tooltip."""
    if known.unjudged_count and known.package_count > known.unjudged_count:
        text = f"{known.unjudged_count:,} of {known.package_count:,} packages unknown"
    elif known.unjudged_count:
        text = f"Unknown: {known.unjudged_count:,} package{'s' if known.unjudged_count > 1 else ''} not judged"
    else:
        text = f"Unknown: {known.why.partition(':')[0]}"
    return format_html(
        '<span class="chip chip-unknown" title="{}">{}{}</span>',
        sentence(known.why),
        icon("circle-question-mark"),
        text,
    )
