"""Migrated clusters, kept between runs: migrating costs more than most runs of a few tests.

A cluster is kept under a digest of everything that its content comes from. It holds no data of a test. Where only
migrations were added since, an older cluster is copied and migrated on, as installations are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from config.embedded import postgres

ROOT: Final = Path(__file__).resolve().parent.parent
KEPT: Final = 12  # clusters, of about 60 MB each
# What a migrated database comes from: migrations and what they import, permissions of models, the server itself.
SOURCES: Final = (
    "accounts/migrations/*.py",
    "accounts/verbs.py",
    "accounts/models.py",
    "lifecycle/migrations/*.py",
    "lifecycle/**/models.py",
    "lifecycle/versions/*.py",
    "config/embedded/postgres.py",
    "requirements/dev.txt",
)


def folder() -> Path | None:
    """Return the folder of the cluster for this checkout; None where no private folder can be had."""
    base = Path(tempfile.gettempdir()) / f"gravingdock-tests-{os.geteuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    if base.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        return None
    return base / hashlib.sha256(json.dumps(sources()).encode()).hexdigest()[:32]


def sources() -> dict[str, str]:
    """Return {path: digest} of what a migrated cluster comes from."""
    paths = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    return {str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def nearest(kept: Path | None) -> Path | None:
    """Return the folder of the cluster for this checkout, else of the one that lacks the fewest of its migrations."""
    if kept is None or kept.exists():
        return kept
    now, best, most = sources(), None, 0
    for folder in kept.parent.iterdir():
        try:
            then = json.loads((folder / "sources.json").read_text())
        except (OSError, ValueError):  # a draft, or removed meanwhile
            continue
        # Models and libraries may differ: what they need in the database, their migrations add.
        needed = {path: digest for path, digest in then.items() if path.endswith(".py") and "models.py" not in path}
        applied = sum("/migrations/" in path for path in needed)
        if needed.items() <= now.items() and applied > most:
            best, most = folder, applied
    return best


def passwords(kept: Path | None) -> postgres.Passwords | None:
    """Return the passwords of the roles in a kept cluster; None without one."""
    try:
        return postgres.Passwords(**json.loads((kept / "passwords.json").read_text())) if kept else None
    except (OSError, ValueError, TypeError):
        return None


def restore(kept: Path, data: Path) -> bool:
    """Copy a kept cluster to `data`; return whether it is there, complete."""
    try:
        shutil.copytree(kept / "data", data, symlinks=True)
        os.utime(kept)
    except OSError:  # removed meanwhile by another run
        shutil.rmtree(data, ignore_errors=True)
        return False
    return True


def keep(kept: Path, data: Path, secrets: postgres.Passwords) -> None:
    """Keep a copy of a cluster whose server is stopped. Of two runs at once, the first wins."""
    draft = Path(tempfile.mkdtemp(dir=kept.parent, prefix="draft-"))
    shutil.copytree(data, draft / "data", symlinks=True)
    (draft / "passwords.json").write_text(json.dumps(asdict(secrets)))
    (draft / "passwords.json").chmod(0o600)
    (draft / "sources.json").write_text(json.dumps(sources()))
    try:
        draft.rename(kept)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
    old = sorted((path for path in kept.parent.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in old[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)
