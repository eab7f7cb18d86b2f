"""Who can read the files of the sealed log."""

from __future__ import annotations

import re
from typing import Final

from accounts.models import User
from accounts.verbs import Verb
from lifecycle.authority.covers import whole_teams
from lifecycle.authority.queries import audited_teams
from lifecycle.core.errors import NotFound
from lifecycle.core.reasons import Reason, refuse_if
from lifecycle.sealed_log.models import LogOrigin
from lifecycle.sealed_log.queries import last_checkpoint, tile_content
from lifecycle.tlog.tiles import ENTRIES, TileName

_PATH: Final = re.compile(r"(?:([1-9][0-9]{0,8})/)?(checkpoint|key|tile/(.+))")


def why_not_read_log(actor: User) -> Reason | None:
    """Return why `actor` cannot read the checkpoints and hashes of the log; None when they can."""
    if (actor.is_active and actor.is_superuser) or audited_teams(actor).exists():
        return None
    return Reason("You need audit.read in a team. Ask a team owner or an admin to grant it.")


def why_not_read_entries(actor: User) -> Reason | None:
    """Return why `actor` cannot read the entries of the log, which are about all teams; None when they can."""
    if whole_teams(actor, Verb.AUDIT_READ) is None:
        return None
    return Reason("Entries of the log are about all teams. Only an admin can read them. Export your events instead.")


def log_file(actor: User, path: str) -> tuple[bytes, bool]:
    """Return a file of the log below `/log/`, and whether its content can never change.

    `checkpoint`, `key` and `tile/...` are of the log that grows; `<number>/...` of any log. Raises NotPermitted and
    NotFound.
    """
    refuse_if(why_not_read_log(actor))
    found = _PATH.fullmatch(path)
    origins = LogOrigin.objects.order_by("-number")
    origin = (origins.filter(number=int(found[1])) if found is not None and found[1] else origins).first()
    checkpoint = last_checkpoint(origin) if origin is not None else None
    if found is None or origin is None or checkpoint is None:
        raise NotFound("There is no such file in the log.")
    if found[2] == "checkpoint":
        return checkpoint.note.encode(), False
    if found[2] == "key":
        return f"{origin.key}\n".encode(), False
    name = TileName.parse(found[3])
    if name is None:
        raise NotFound("There is no such file in the log.")
    if name.level == ENTRIES:
        refuse_if(why_not_read_entries(actor))
    content = tile_content(origin, name, checkpoint.size)
    if content is None:
        raise NotFound("There is no such file in the log.")
    return content, True
