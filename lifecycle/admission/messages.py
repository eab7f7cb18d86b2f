"""What people read who are refused or warned: within the limits of API servers."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Final

from lifecycle.admission.constants import MESSAGE_MAX, WARNING_MAX, WARNINGS_MAX
from lifecycle.admission.judging import is_carried
from lifecycle.admission.types import CLOSED, ImageResult, Outcome, Review

_CUT: Final = "…"
_NOT_CARRIED: Final = (
    "The break-glass annotation does not count: it opens only the images that it was brought in for, for 24 hours, and"
    " then only if a reviewer called it justified. Who may break glass brings it in again, with another text."
)


def new_id() -> str:
    """Return a number that nobody can guess, for the page of a decision."""
    return secrets.token_hex(10)


def message_of(outcome: Outcome, review: Review, address: str) -> str:
    """Return why an object is refused: each image with its code and who can resolve it, then the page."""
    place = f" in {outcome.environment}" if outcome.environment else ""
    head = f"Gravingdock refused {review.kind or 'the object'}{place}: "
    tail = f" {address}"
    if len(review.annotation.strip()) and outcome.refused[0].where != "annotation":
        if is_carried(review) and any(result.code not in CLOSED for result in outcome.refused):
            tail = f" {_NOT_CARRIED}{tail}"
        elif not outcome.breakglass:
            tail = f" The break-glass annotation does not count.{tail}"
    room = MESSAGE_MAX - len(head) - len(tail)
    text = _joined(map(_line, outcome.refused), " ", room)
    if len(text) > room:
        # Every image is named shortly, as far as there is room: the page has the rest.
        text = _shortened(_joined(map(_short_line, outcome.refused), "; ", room), room)
    return head + text + tail


def warnings_of(outcome: Outcome, address: str) -> list[str]:
    """Return one warning of at most WARNING_MAX characters for each image, and one with the page."""
    shown = outcome.refused[: WARNINGS_MAX - 1]
    lines = [_warning(result) for result in shown]
    return [*lines, _shortened(f"Gravingdock: {address}", WARNING_MAX)]


def _joined(lines: Iterable[str], separator: str, room: int) -> str:
    """Return lines in one text, without those that begin beyond `room` characters."""
    taken, size = [], 0
    for line in lines:
        taken.append(line)
        size += len(line) + len(separator)
        if size > room + len(separator):
            break
    return separator.join(taken)


def _line(result: ImageResult) -> str:
    return f"{result.where}, {result.reference}: {result.code}. {result.reason} {result.who}"


def _short_line(result: ImageResult) -> str:
    return f"{result.where}, {_middle(result.reference, 90)}: {result.code}"


def _warning(result: ImageResult) -> str:
    fixed = f"Gravingdock: {result.code}, {_middle(result.where, 40)}, "
    return fixed + _middle(result.reference, WARNING_MAX - len(fixed))


def _middle(text: str, limit: int) -> str:
    """Return a text with its middle left out: the ends of a reference say the most."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return text[:head] + _CUT + text[len(text) - (limit - 1 - head) :]


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + _CUT
