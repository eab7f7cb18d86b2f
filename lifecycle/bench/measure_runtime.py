"""Runtime bench: reports of 10,000 pods, the agent that holds them, an advisory on what runs, and events of Falco.

With the real processes. Only the API server is ours: it sends pods of the usual size, and is not what is measured.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
from django.conf import settings
from django.db import transaction

from accounts import tokens
from accounts.models import ApiToken, Role, Team, User
from accounts.queries import system_user
from lifecycle.advisories.models import Feed
from lifecycle.advisories.services import sync_feed
from lifecycle.alerts import passes
from lifecycle.alerts.models import Alert, AlertPass
from lifecycle.authority.models import RoleGrant
from lifecycle.bench import cluster_api, loading, open_loop
from lifecycle.bench.measuring import TRIAL, Caller, Unusable, load_s_for, percentile, requests_per_s
from lifecycle.bench.processes import Processes
from lifecycle.bench.types import Figure, Figures
from lifecycle.clusters import services as clusters
from lifecycle.core import clock
from lifecycle.inventory.models import RunningContainer, RuntimeReport
from lifecycle.registry.models import Tag
from lifecycle.runtime.models import RuntimeEvent
from lifecycle.sbom.models import InventoryPackage, PackageVersion

PODS: Final = 10_000
_REPORT_TARGET_S: Final = 5.0
_UNCHANGED_TARGET_S: Final = 1.5
_ANSWER_TARGET_MS: Final = 300.0
_ALERT_TARGET_S: Final = 10.0
_EVENTS_TARGET: Final = 300.0
_AGENT_RSS_TARGET_MB: Final = 120.0
_REPEATS: Final = 3
_PATIENCE_S: Final = 120.0
# Seconds of patience, and between two looks. Most of the time is the work of the API server that is ours.
_AGENT_WAITS: Final = (300.0, 0.5)
_POLL_S: Final = 0.02
_NAME: Final = "BENCH-2026-1"


def measure(images: int, *, note: Callable[[str], None]) -> Figures:
    """Load the data, start web, worker and ticker, then report, publish an advisory, and send events."""
    dock = loading.load(images, note=note)
    loading.complete(dock, note=note)
    team = Team.objects.earliest("pk")
    boss = User.objects.create_user("bench-agent")
    RoleGrant.objects.create(user=boss, role=Role.objects.get(slug="owner"), team=team)
    _, text = tokens.create_token(boss, kind=ApiToken.Kind.PERSONAL, name="bench")
    clusters.create_cluster(team, "bench", actor=boss)
    clusters.create_cluster(team, "bench-agent", actor=boss)
    _, secret = clusters.create_secret("bench", "alerts", actor=boss)
    loading.as_owner("VACUUM ANALYZE")
    pods = PODS if images >= TRIAL else 200
    with Processes() as processes:
        processes.web()
        processes.workers()
        note(f"reporting {pods} pods")
        caller = Caller(settings.PUBLIC_URL, {"Authorization": f"Bearer {text}"})
        figures = _reports(caller, pods)
        caller.close()
        processes.ticker()
        note("publishing an advisory")
        figures["advisory_to_alert_s"] = Figure(_advisory_to_alert_s(), "s", _ALERT_TARGET_S)
        note("sending events")
        figures |= _events(secret, images)
        # Last: what it reports would be part of what the others look at.
        note(f"letting the agent follow {pods} pods")
        figures["agent_rss_mb"] = Figure(_agent_rss_mb(text, pods), "MB", _AGENT_RSS_TARGET_MB)
    return figures


def _reports(caller: Caller, pods: int) -> dict[str, Figure]:
    """Return the seconds until a first, and until an unchanged report is applied, and the time of the answer."""
    entries = _entries(pods)
    _send(caller, _report(0, []))
    _wait(partial(_is_applied, "bench-0"), "The first report was not applied: do the workers run?")
    times, answers = [], []
    for sequence in range(1, 2 + _REPEATS):
        report = _report(sequence, entries)
        started = time.perf_counter()
        _send(caller, report)
        answers.append(1000 * (time.perf_counter() - started))
        _wait(partial(_is_applied, f"bench-{sequence}"), "A report was not applied.")
        times.append(time.perf_counter() - started)
    return {
        "report_10k_pods_s": Figure(times[0], "s", _REPORT_TARGET_S),
        "report_unchanged_s": Figure(percentile(times[1:], 0.5), "s", _UNCHANGED_TARGET_S),
        "report_answer_ms": Figure(percentile(answers, 0.5), "ms", _ANSWER_TARGET_MS),
    }


def _send(caller: Caller, body: bytes) -> None:
    caller.post_bytes("/api/v1/clusters/bench/reports/", body, {"Content-Encoding": "gzip"})


def _report(sequence: int, entries: list[dict[str, Any]]) -> bytes:
    """Return a report as agents send it."""
    report = {
        "schema": "gravingdock.report.v1", "report_id": f"bench-{sequence}", "boot": "b", "sequence": sequence,
        "kind": "full", "observed_at": clock.now().isoformat(), "reporter": "bench", "containers": entries,
    }  # fmt: skip
    return gzip.compress(orjson.dumps(report), 5)


def _is_applied(report_id: str) -> bool:
    return RuntimeReport.objects.filter(report_id=report_id, applied_at__isnull=False).exists()


def _entries(pods: int) -> list[dict[str, Any]]:
    """Return the containers of pods over as many images as there are tags, up to a thousand."""
    rows = Tag.objects.filter(image__kind="manifest").order_by("pk")
    columns = ("repository__registry__endpoint", "repository__name", "name", "image__digest")
    tags = list(rows.values_list(*columns)[:1000])
    entries = []
    for number in range(pods):
        endpoint, repository, tag, digest = tags[number % len(tags)]
        name = f"{endpoint.partition('://')[2]}/{repository}"
        entries.append(
            {
                "key": f"{number:036}/main/app", "namespace": f"space-{number % 50}", "pod": f"app-{number}",
                "workload": {"kind": "Deployment", "name": f"app-{number % 2000}"}, "node": f"node-{number % 100}",
                "arch": "amd64", "kind": "main", "name": "app", "image": f"{name}:{tag}",
                "image_id": f"{name}@{digest}", "container_id": f"containerd://{number:064x}",
                "state": "running", "started_at": "2026-11-30T12:00:00Z",
            }
        )  # fmt: skip
    return entries


def _agent_rss_mb(token: str, pods: int) -> float:
    """Return the most memory that the agent needs to list pods, to report them, and to report that all restarted."""
    running = RunningContainer.objects.filter(cluster__slug="bench-agent", until=None)
    log = Path(settings.HOME) / "agent.log"
    with (
        cluster_api.serving(pods) as api,
        tempfile.TemporaryDirectory() as folder,
        _agent(Path(folder), api.url, token, log) as process,
    ):

        def are_known(started_at: str) -> bool:
            if process.poll() is not None:
                raise Unusable(f"The agent ended: {log.read_text()[-500:]}")
            return running.filter(started_at=started_at).count() >= pods

        try:
            _wait(partial(are_known, cluster_api.STARTED_AT), "The agent did not report its pods.", *_AGENT_WAITS)
            api.change_all()
            _wait(partial(are_known, cluster_api.RESTARTED_AT), "The agent did not report changes.", *_AGENT_WAITS)
        except Unusable as problem:
            raise Unusable(f"{problem} {running.count()} run. {log.read_text()[-500:]}") from None
        return open_loop.rss_mb(process.pid)


@contextmanager
def _agent(folder: Path, address: str, token: str, log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the agent as in a cluster, in a process of its own."""
    named = {"cluster": "bench", "user": "bench"}
    configuration = {
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": address}}], "users": [{"name": "bench", "user": {}}],
        "contexts": [{"name": "bench", "context": named}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(json.dumps(configuration))
    environment = {
        "GRAVINGDOCK_URL": settings.PUBLIC_URL, "GRAVINGDOCK_CLUSTER": "bench-agent", "AGENT_TOKEN": token,
        "KUBECONFIG": str(folder / "kubeconfig"), "PATH": os.environ["PATH"],
    }  # fmt: skip
    program = Path(settings.BASE_DIR) / "deploy" / "agent" / "agent.py"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, program], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _advisory_to_alert_s() -> float:
    """Return the seconds from the end of a synchronisation with a new advisory on what runs until its alert."""
    running = InventoryPackage.objects.filter(inventory__image_inventories__image__running__until=None)
    package = PackageVersion.objects.filter(pk__in=running.values("package"), ecosystem="Debian").first()
    if package is None:
        raise Unusable("No package of Debian runs.")
    with tempfile.TemporaryDirectory() as folder:
        _export(Path(folder), "BENCH-2026-0", package, fixed="0")  # affects nothing: the first load tells nobody
        sync_feed(folder, feed_name="bench", actor=system_user())
        Feed.objects.get(name="bench")
        _wait(lambda: not passes.is_due(clock.now()) and AlertPass.objects.exists(), "The first look did not end.")
        with transaction.atomic():
            Alert.objects.all().delete()
        _export(Path(folder), _NAME, package, fixed="99999")
        sync_feed(folder, feed_name="bench", actor=system_user())
        started = time.perf_counter()
        found = Alert.objects.filter(kind="finding.running", vulnerability=_NAME)
        _wait(found.exists, "The advisory raised no alert.")
        return time.perf_counter() - started


def _export(root: Path, name: str, package: PackageVersion, *, fixed: str) -> None:
    """Add a record to an OSV export."""
    folder = root / "Debian"
    folder.mkdir(exist_ok=True)
    ecosystem = f"Debian:{package.release}" if package.release else "Debian"
    events = [{"introduced": "0"}, {"fixed": fixed}]
    record = {
        "id": name, "modified": f"2026-01-01T00:00:0{name[-1]}Z",
        "affected": [
            {
                "package": {"ecosystem": ecosystem, "name": package.match_name},
                "ranges": [{"type": "ECOSYSTEM", "events": events}],
            }
        ],
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(record))
    with (folder / "modified_id.csv").open("a") as listed:
        listed.write(f"{record['modified']},{name}\n")


def _events(secret: str, images: int) -> dict[str, Figure]:
    """Return the events per second that are stored, from 4 senders, and the seconds until the last is folded."""
    event = {
        "rule": "Terminal shell in container", "priority": "Warning", "output": "A shell was spawned",
        "time": "2026-11-30T12:00:00Z",
        "output_fields": {"k8s.ns.name": "space-1", "k8s.pod.name": "app-1", "proc.cmdline": "sh"},
    }  # fmt: skip
    make = partial(Caller, settings.PUBLIC_URL, {})
    rate = requests_per_s(make, f"/hooks/falco/bench/{secret}", seconds=load_s_for(images), body=event)
    started = time.perf_counter()
    _wait(lambda: not RuntimeEvent.objects.filter(event__isnull=False).exists(), "Events were not folded.")
    return {
        "falco_events_per_s": Figure(rate, "events/s", _EVENTS_TARGET),
        "falco_folded_s": Figure(max(time.perf_counter() - started, 0.001), "s"),
    }


def _wait(
    condition: Callable[[], bool], problem: str, patience_s: float = _PATIENCE_S, poll_s: float = _POLL_S
) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise Unusable(problem)
        time.sleep(poll_s)
