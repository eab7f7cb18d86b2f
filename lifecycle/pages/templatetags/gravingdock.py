"""Template tags for small page elements: icons, chips, digests, times, gate marks, bars.

They are functions instead of includes, because a list of fifty rows calls them hundreds of times.
templates/components/README.md shows an example of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode

from django import template
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from lifecycle.core import clock
from lifecycle.core.reasons import Denial
from lifecycle.notices.topics import label_of
from lifecycle.pages.audit import wording

register = template.Library()

# Stored state -> (tone, icon, label). Tones are the chip colours of components.css.
_STATES: Final[dict[str, tuple[str, str, str]]] = {
    # requirements of a promotion
    "satisfied": ("ok", "circle-check", "Satisfied"),
    "pending": ("waiting", "clock", "Pending"),
    "unsatisfied": ("bad", "circle-x", "Unsatisfied"),
    "unmet": ("none", "circle-minus", "Not met"),
    "waived": ("waived", "file-check", "Waived"),
    "bypassed": ("bypassed", "siren", "Bypassed"),
    "not_applicable": ("none", "circle-minus", "Not applicable"),
    "error": ("warning", "unplug", "Error"),
    # verdicts
    "pass": ("ok", "badge-check", "Pass"),
    "warn": ("warning", "triangle-alert", "Warn"),
    "blocked": ("bad", "octagon-x", "Blocked"),
    "unknown": ("unknown", "circle-question-mark", "Unknown"),
    # promotions
    "open": ("waiting", "clock", "Open"),
    "ready": ("ok", "circle-check", "Ready"),
    "executing": ("running", "loader", "Running"),
    "verifying": ("running", "loader", "Verifying"),
    "reverting": ("running", "undo-2", "Putting back"),
    "succeeded": ("ok", "circle-check", "Succeeded"),
    "failed": ("bad", "circle-x", "Failed"),
    "rejected": ("bad", "x", "Rejected"),
    "withdrawn": ("none", "undo-2", "Withdrawn"),
    "expired": ("none", "hourglass", "Expired"),
    "superseded": ("none", "history", "Superseded"),
    # jobs, waves and their images
    "waiting": ("waiting", "clock", "Waiting"),
    "running": ("running", "loader", "Running"),
    "planned": ("waiting", "list-checks", "Planned"),
    "building": ("running", "loader", "Building"),
    "scanning": ("running", "loader", "Scanning"),
    "rebased": ("ok", "check", "Rebased"),
    "rebuilt": ("ok", "check", "Rebuilt"),
    "done": ("ok", "circle-check", "Done"),
    "unchanged": ("none", "minus", "Unchanged"),
    "cancelled": ("none", "ban", "Cancelled"),
    "warning": ("waiting", "triangle-alert", "Warning"),
    # quarantines
    "active": ("bad", "octagon-x", "Active"),
    "release_requested": ("waiting", "clock", "Release requested"),
    "released": ("none", "undo-2", "Released"),
    # alerts
    "acknowledged": ("ok", "eye", "Acknowledged"),
    "snoozed": ("none", "bell-off", "Snoozed"),
    "resolved": ("ok", "check", "Resolved"),
    # decisions about findings
    "not_affected": ("ok", "shield-check", "Not affected"),
    "false_positive": ("none", "ban", "False positive"),
    "fixed": ("ok", "circle-check", "Fixed"),
    # pen-test findings
    "confirmed": ("bad", "circle-check", "Confirmed"),
    "accepted": ("waived", "stamp", "Accepted"),
    "retest": ("waiting", "rotate-cw", "Retest"),
    "reopened": ("bad", "history", "Reopened"),
    "under_investigation": ("waiting", "clock", "Under investigation"),
    "affected": ("bad", "triangle-alert", "Affected"),
    "live": ("ok", "circle-check", "Counts"),
    "advice": ("none", "circle", "Advice"),
    "applied": ("ok", "circle-check", "Applied"),
    "replaced": ("none", "history", "Replaced"),
    # waivers
    "requested": ("waiting", "clock", "Requested"),
    "revoked": ("none", "ban", "Revoked"),
    "closed": ("none", "history", "Closed: a fix shipped"),
    # votes and audit outcomes
    "approve": ("ok", "check", "Approved"),
    "approved": ("ok", "check", "Approved"),
    "reject": ("bad", "x", "Rejected"),
    "object": ("bad", "octagon-x", "Objected"),
    "withdraw": ("none", "undo-2", "Taken back"),
    "overruled": ("none", "stamp", "Overruled"),
    "lapsed": ("none", "history", "Lapsed"),
    "verified": ("ok", "shield-check", "Verified"),
    "ok": ("ok", "check", "Done"),
    "refused": ("bad", "circle-x", "Refused"),
}
_LONGEST: Final = timedelta(days=365 * 50)  # no deadline of ours is further away; a later date is a constant
_CHANGES: Final[dict[str, tuple[str, str]]] = {
    "fixed": ("good", "arrow-down"),
    "new": ("bad", "arrow-up"),
    "introduced": ("bad", "arrow-up"),
}
# Bar heights of the gate marks, out of 16. The shape shows the state; the colour only repeats it (mocks/README.md 1).
_GATE_HEIGHTS: Final = {
    "satisfied": 12,
    "pending": 6,
    "unsatisfied": 16,
    "error": 16,
    "unmet": 6,
    "warning": 6,
    "not_applicable": 3,
}
_GATE_ORDER: Final = (
    "unsatisfied",
    "error",
    "pending",
    "unmet",
    "warning",
    "bypassed",
    "waived",
    "satisfied",
    "not_applicable",
)


# Items of the top bar: (value of `nav` in the page context, route, label, second key after g).
_NAV: Final = (
    ("inbox", "lifecycle:inbox", "Inbox", "i"),
    ("images", "lifecycle:images", "Images", "m"),
    ("lineage", "lifecycle:lineage", "Lineage", "l"),
    ("fixes", "lifecycle:fixes", "Fixes", "f"),
    ("promotions", "lifecycle:promotions", "Promotions", "p"),
)


@register.filter
def topic_label(name: str) -> str:
    """Return the label of the topic of a notice."""
    return label_of(name)


@register.simple_tag
def promote_url(repository_id: int, digest: str, environment: int | None = None, tag: str = "") -> str:
    """Return the address of the form that requests a promotion, with the fields that are known."""
    chosen: dict[str, str | int | None] = {
        "repository": repository_id,
        "digest": digest,
        "environment": environment,
        "tag": tag,
    }
    query = urlencode({name: value for name, value in chosen.items() if value}, safe=":")
    return f"{reverse('lifecycle:promotion-new')}?{query}"


@register.simple_block_tag
def empty_state(content: str, title: str) -> SafeString:
    """Render an empty list: its title, and the block's text, which says what to do next."""
    return render_to_string("components/empty.html", {"title": title, "text": content})


@register.simple_tag(takes_context=True)
def sort_header(context: Any, key: str, label: str, css: str = "") -> SafeString:
    """Return the header of a column that sorts the list: a link, with the present direction. `sort` is in the context.

    The first click sorts as the column is sorted by default, the second one reverses it.
    """
    present = context.get("sort", "")
    is_sorted = present.removeprefix("-") == key
    query = context["request"].GET.copy()
    for name in ("after", "before"):
        query.pop(name, None)
    query["sort"] = f"-{key}" if present == key else key
    return format_html(
        '<th scope="col" class="{}"{}><a class="sorts" href="?{}">{}{}</a></th>',
        css,
        format_html(' aria-sort="{}"', "descending" if present.startswith("-") else "ascending") if is_sorted else "",
        query.urlencode(),
        label,
        icon("arrow-up" if present.startswith("-") else "arrow-down", css="icon-sm") if is_sorted else "",
    )


@register.simple_tag
def nav_items() -> list[dict[str, str]]:
    """Return the items of the top bar."""
    return [{"name": name, "url": reverse(route), "label": label, "key": key} for name, route, label, key in _NAV]


@register.simple_tag
def icon(name: str, label: str = "", css: str = "") -> SafeString:
    """Return the icon `name` of the sprite. It is hidden from screen readers unless it has a `label`."""
    return _icon(f"{static('lifecycle/icons.svg')}#{name}", str(label), f"icon {css}".strip())


@lru_cache(maxsize=1024)
def _icon(reference: str, label: str, classes: str) -> SafeString:
    """Return the icon. Cached: a page with lists has over a thousand icons, of a few kinds."""
    if label:
        return format_html(
            '<svg class="{}" role="img" aria-label="{}"><use href="{}"></use></svg>',
            classes,
            label,
            reference,
        )
    return format_html(
        '<svg class="{}" aria-hidden="true"><use href="{}"></use></svg>',
        classes,
        reference,
    )


@register.simple_tag
def chip(tone: str, icon_name: str, text: str, css: str = "") -> SafeString:
    """Return a chip with an icon, a text and a colour."""
    return format_html('<span class="chip chip-{} {}">{}{}</span>', tone, css, icon(icon_name), text)


@register.simple_tag
def chip_state(state: str, text: str = "", large: bool = False) -> SafeString:
    """Return the chip of a stored state. `text` replaces the default label ("Open: 1 pending")."""
    tone, icon_name, word = _STATES.get(str(state), ("none", "circle", str(state).replace("_", " ").capitalize()))
    return chip(tone, icon_name, text or word, "chip-lg" if large else "")


@register.filter
def percent(share: float) -> str:
    """Return a share from 0 to 1 in percent: "12.3 %", "below 0.1 %"."""
    return "below 0.1 %" if 0 < share < 0.001 else f"{share * 100:.1f} %"


@register.filter
def sentence(phrase: str) -> str:
    """Return a phrase with a capital letter and a full stop; "" for none."""
    return f"{phrase[:1].upper()}{phrase[1:]}." if phrase else ""


@register.simple_tag
def chip_tag(name: str) -> SafeString:
    """Return the chip of a tag or version."""
    return format_html('<span class="chip chip-tag">{}</span>', name)


@register.simple_tag
def change(kind: str, count: int) -> SafeString:
    """Return `↓ 14 fixed`, `↑ 1 new` or `- 0 new`: an arrow, a number and a word, coloured as good, bad or neutral."""
    css, icon_name = _CHANGES.get(kind, ("muted", "minus"))
    if kind == "unknown":
        css, icon_name = "warn", "circle-question-mark"
    if not count:
        css, icon_name = "muted", "minus"
    word = "new" if kind == "introduced" else kind
    return format_html('<span class="change {}">{}{} {}</span>', css, icon(icon_name), count, word)


@register.filter
def short_digest(digest: str) -> str:
    """Return the algorithm and the first twelve hex digits of a digest."""
    algorithm, separator, encoded = str(digest).partition(":")
    return f"{algorithm}{separator}{encoded[:12]}" if separator else str(digest)[:19]


@register.simple_tag
def digest(text: str, url: str = "", full: bool = False) -> SafeString:
    """Return a digest with a copy button. It is shortened unless `full`; the tooltip shows the full digest."""
    if not text:
        return format_html('<span class="quiet">{}</span>', "none")
    algorithm, _, encoded = str(text).partition(":")
    shown = format_html(
        '<span class="algorithm">{}:</span>{}',
        algorithm,
        encoded if full else encoded[:12] + "…",
    )
    body = (
        format_html('<a href="{}" title="{}">{}</a>', url, text, shown)
        if url
        else format_html('<span title="{}">{}</span>', text, shown)
    )
    return format_html('<span class="digest">{}{}</span>', body, copy(text, "Copy digest"))


@register.simple_tag
def copy(text: str, label: str = "Copy") -> SafeString:
    """Return a button that copies `text`. It is hidden without JavaScript, because copying needs it."""
    return format_html(
        '<copy-field value="{}"><button type="button" class="copy" hidden aria-label="{}" title="{}">{}{}</button>'
        "</copy-field>",
        text,
        label,
        label,
        icon("copy", css="todo"),
        icon("check", css="done"),
    )


@register.simple_tag
def command(text: str, label: str = "Copy command") -> SafeString:
    """Return a command line in a box with a copy button."""
    return format_html('<div class="command"><code>{}</code>{}</div>', text, copy(text, label))


@register.simple_tag
def act_button(route: str, pk: int | str, icon_name: str, text: str, why_not: object, *, css: str = "") -> SafeString:
    """Return a button that sends the form around it to `route`. It is disabled if there is a reason `why_not`."""
    return format_html(
        '<button class="{}" formaction="{}"{}>{}{}</button>',
        f"btn {css}".strip(),
        reverse(route, args=[pk]),
        " disabled" if why_not else "",
        icon(icon_name),
        text,
    )


@register.filter
def askable(reason: object) -> SafeString | str:
    """Return a reason as text; one of a missing right is followed by a link to ask for it."""
    text = reason if isinstance(reason, str) else getattr(reason, "text", None) or getattr(reason, "reason", reason)
    if not isinstance(text, Denial):
        return str(text or "")
    query = urlencode(text.missing)
    where = reverse("lifecycle:access-request-new")
    return format_html('{} <a class="link" href="{}?{}">Ask for it</a>', str(text), where, query)


@register.filter
def span(seconds: float | None) -> str:
    """Return a duration in its largest unit ("2 h"); a dot for None."""
    return "·" if seconds is None else _span(seconds)


def _span(seconds: float) -> str:
    """Return a duration in its largest unit ("2 h")."""
    for size, unit in ((31_536_000, "y"), (86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


@register.simple_tag
def ago(moment: datetime | None, never: str = "never") -> SafeString:
    """Return `2 h ago` or `in 3 d` as a time element. The tooltip has the full time in the zone of the reader."""
    if moment is not None and not clock.EARLIEST <= moment <= clock.now() + _LONGEST:
        never, moment = "not said", None
    if moment is None:
        return format_html('<span class="quiet">{}</span>', never)
    seconds = (clock.now() - moment).total_seconds()
    if abs(seconds) < 5:
        text = "just now"
    elif seconds > 0:
        text = f"{_span(seconds)} ago"
    else:
        text = f"in {_span(-seconds)}"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        moment.isoformat(timespec="seconds"),
        in_zone(moment, "%d %b %Y %H:%M:%S"),
        text,
    )


@register.filter
def browser_name(client: str) -> str:
    """Return the browser and system that a User-Agent names, `Firefox on Linux`, as far as it can be told."""
    # Each names the ones before it too, so the most special comes first.
    browsers = (
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    )
    systems = (
        ("Android", "Android"),
        ("iPhone", "iOS"),
        ("iPad", "iOS"),
        ("Windows", "Windows"),
        ("Mac OS", "macOS"),
        ("Linux", "Linux"),
    )
    browser = next((name for mark, name in browsers if mark in client), "Browser")
    system = next((name for mark, name in systems if mark in client), "")
    return f"{browser} on {system}" if system else browser


@register.filter
def in_zone(moment: datetime | None, form: str = "%d %b %H:%M") -> str:
    """Return the time in the zone of the reader with the name of the zone, `05 Jan 14:30 CET`; "never" for None."""
    return f"{timezone.localtime(moment):{form} %Z}" if moment is not None else "never"


@register.filter
def duration(seconds: float | None) -> str:
    """Return minutes and seconds, `2:10`; a dot for None."""
    if seconds is None:
        return "·"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@register.filter
def took(seconds: float | None) -> str:
    """Return how long something took: `0.4 s`, `12 s`, `2:10 min`, `3:05 h`; "not started" for None."""
    if seconds is None:
        return "not started"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{int(seconds)} s"
    unit, large = ("min", 60) if seconds < 3600 else ("h", 3600)
    rest = int(seconds % large // (large // 60))
    return f"{int(seconds // large)}:{rest:02d} {unit}"


@register.filter
def size(count: int | None) -> str:
    """Return a number of bytes in powers of 1000, as registries and `docker images` show it."""
    value = float(count or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


@register.filter
def size_change(count: int) -> str:
    """Return a difference of sizes: `+3.1 MB`, `-420 kB`, `no change`."""
    return f"{'+' if count > 0 else '-'}{size(abs(count))}" if count else "no change"


@register.simple_tag
def gate_marks(states: Iterable[str]) -> SafeString:
    """Return one small bar per gate, unmet gates first, with the counts as text beside it."""
    ordered = sorted(
        states,
        key=lambda state: _GATE_ORDER.index(state) if state in _GATE_ORDER else 1,
    )
    bars = []
    for number, state in enumerate(ordered):
        height = _GATE_HEIGHTS.get(state, 12)
        is_hollow = state in {"waived", "bypassed", "error"}
        inset = 0.75 if is_hollow else 0
        bars.append(
            (
                f"gate-{state}",
                number * 7 + inset,
                16 - height + inset,
                5 - 2 * inset,
                height - 2 * inset,
            )
        )
    passed = sum(state in {"satisfied", "waived", "not_applicable"} for state in ordered)
    others = [
        f"{ordered.count(state)} {'not met' if state == 'unmet' else state}"
        for state in _GATE_ORDER[:6]
        if state in ordered
    ]
    words = f"{passed} of {len(ordered)} requirements"
    return format_html(
        '<span class="gates"><svg width="{}" height="16" viewBox="0 0 {} 16" aria-hidden="true">{}</svg>'
        '<span>{}<span class="{}">{}</span></span></span>',
        len(ordered) * 7,
        max(len(ordered) * 7, 1),
        format_html_join(
            "",
            '<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="1"></rect>',
            bars,
        ),
        words,
        "bad" if {"unsatisfied", "error"} & set(ordered) else "muted",
        "".join(f" · {other}" for other in others),
    )


@register.simple_tag
def parts_bar(parts: Sequence[tuple[str, str, int]], label: str) -> SafeString:
    """Return a bar of (css class, text, amount). It is an SVG, because a strict CSP forbids inline widths.

    Classes: own, base, base2, unknown, done, failed, rest, shared. `label` describes the bar for screen readers.
    """
    total = sum(amount for _, _, amount in parts) or 1
    cells, start = [], 0.0
    for css, text, amount in parts:
        share = 100 * amount / total
        # On a wide panel a text needs about 1 % per letter. Where it does not fit, the text below the bar shows it.
        shown = text if share > len(text) * 1.7 else (str(amount) if share > 4 else "")
        cells.append((css, f"{start:.2f}%", f"{share:.2f}%", f"{text}", shown))
        start += share
    return format_html(
        '<svg class="parts" role="img" aria-label="{}">{}</svg>',
        label,
        format_html_join(
            "",
            '<svg class="{}" x="{}" width="{}" height="26"><title>{}</title>'
            '<rect x="1" y="1" width="98%" height="24" rx="2"></rect><text x="8" y="13">{}</text></svg>',
            cells,
        ),
    )


@register.simple_tag
def progress_bar(parts: Sequence[tuple[str, str, int]], label: str) -> SafeString:
    """Return a thin bar of (css class, text, amount): solid for finished parts, hatched for running ones.

    Classes: done, busy, failed, blocked, rest. `busy` is hatched only if the page includes components/hatch.html.
    """
    total = sum(amount for _, _, amount in parts) or 1
    cells, start = [], 0.0
    for css, text, amount in parts:
        share = 100 * amount / total
        fill = "url(#hatch-busy) currentColor" if css == "busy" else ""
        cells.append((css, f"{start:.2f}%", f"{share:.2f}%", fill, text))
        start += share
    return format_html(
        '<svg class="progress-parts" role="img" aria-label="{}">{}</svg>',
        label,
        format_html_join(
            "", '<rect class="{}" x="{}" width="{}" height="100%" fill="{}"><title>{}</title></rect>', cells
        ),
    )


@register.filter
def event_subject(event: Any) -> str:
    """Return the subject of an audit event as text; see pages/audit/wording.py."""
    return wording.subject_of(event)


@register.filter
def event_note(event: Any) -> str:
    """Return the reason of an audit event, or else its details and changes, as text."""
    return wording.note_of(event)


@register.filter
def plural(count: int, word: str) -> str:
    """Return `1 image` or `3 images`. `word` can contain both forms: `repository,repositories`."""
    one, _, many = word.partition(",")
    return f"{count:,} {one if count == 1 else many or one + 's'}"
