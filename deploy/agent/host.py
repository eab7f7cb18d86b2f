#!/usr/bin/env python3
"""Reports the containers of one host with Docker or Podman to Gravingdock. Needs Python 3.9 and nothing else.

Settings, from the environment:
  GRAVINGDOCK_URL      such as https://gravingdock.example.com
  GRAVINGDOCK_CLUSTER  the cluster's name there
  AGENT_TOKEN          a robot's token with runtime.report, or AGENT_TOKEN_FILE
  GRAVINGDOCK_CA       a file with the certificates to trust; default: those of the system
  DOCKER_SOCKET        /var/run/docker.sock, or Podman's /run/podman/podman.sock
  REPORTER             the name of this host; default: its host name
  INTERVAL_S           seconds between two looks; default 20

`--once` sends one full report and ends. `--print` prints it instead. No value of a variable and no argument is sent.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from datetime import datetime, timezone

TIMEOUT_S = 30
BODY_MAX = 64 * 1024 * 1024
HEARTBEAT_S = 30
FULL_EVERY_S = 3600


class SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def ask(path: str, address: str):
    """Return the JSON that the Docker API answers, or None for 404: the container is gone meanwhile."""
    connection = SocketConnection(path)
    try:
        connection.request("GET", address)
        answer = connection.getresponse()
        body = answer.read(BODY_MAX + 1)
        if answer.status == 404:
            return None
        if answer.status != 200 or len(body) > BODY_MAX:
            raise OSError(f"{address} answered {answer.status}")
        return json.loads(body)
    finally:
        connection.close()


def containers(path: str, reporter: str) -> list:
    """Return an entry for each container of this host."""
    images, entries = {}, []
    for listed in ask(path, "/containers/json?all=true") or []:
        inspected = ask(path, f"/containers/{listed['Id']}/json")
        if inspected is None:
            continue
        image_id = inspected.get("Image") or listed.get("ImageID") or ""
        if image_id and image_id not in images:
            images[image_id] = ask(path, f"/images/{urllib.parse.quote(image_id, safe='')}/json") or {}
        image = images.get(image_id, {})
        config, state = inspected.get("Config") or {}, inspected.get("State") or {}
        labels = config.get("Labels") or {}
        name = (inspected.get("Name") or listed["Id"][:12]).lstrip("/")
        service = labels.get("com.docker.compose.service")
        entries.append(
            {
                "key": f"{listed['Id']}/main/{name}",
                "namespace": labels.get("com.docker.compose.project") or "default",
                "workload": {"kind": "Service", "name": service} if service else {"kind": "Container", "name": name},
                "pod": "",
                "node": reporter,
                "arch": image.get("Architecture") or "",
                "kind": "main",
                "name": name,
                "image": config.get("Image") or listed.get("Image") or image_id,
                # The Docker API calls the digest of the configuration the image's id. RepoDigests has those of index
                # and manifest, sorted: the server knows which is which.
                "image_id": image_id,
                "image_ids": list(image.get("RepoDigests") or [])[:15],
                "container_id": f"docker://{listed['Id']}",
                "state": state.get("Status") or listed.get("State") or "running",
                "started_at": state.get("StartedAt") or None,
            }
        )
    return entries


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error. Followed, it would turn the report into a GET, and show the token to another host."""

    def redirect_request(self, *_):
        """Follow nothing: urllib then raises HTTPError."""


class Sender:
    """Sends reports, with a boot id and a growing number."""

    def __init__(self, url: str, cluster: str, token: str, reporter: str) -> None:
        self.address = f"{url.rstrip('/')}/api/v1/clusters/{urllib.parse.quote(cluster, safe='')}/reports/"
        self.token, self.reporter, self.boot, self.sequence = token, reporter, str(uuid.uuid4()), 0
        trust = ssl.create_default_context(cafile=os.environ.get("GRAVINGDOCK_CA") or None)
        self.opener = urllib.request.build_opener(NoRedirects, urllib.request.HTTPSHandler(context=trust))

    def report(self, kind: str, entries: list, gone: list) -> dict:
        return {
            "schema": "gravingdock.report.v1", "report_id": str(uuid.uuid4()), "boot": self.boot,
            "sequence": self.sequence + 1, "kind": kind, "observed_at": datetime.now(timezone.utc).isoformat(),
            "reporter": self.reporter, "containers": entries, "gone": gone, "specs": {}, "namespaces": [],
        }  # fmt: skip

    def send(self, report: dict) -> int:
        """Return the status of the answer; 0 when Gravingdock is away. The same report can be sent again."""
        request = urllib.request.Request(
            self.address,
            data=gzip.compress(json.dumps(report).encode(), 5),
            method="POST",
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "Content-Encoding": "gzip",
            },
        )
        try:
            with self.opener.open(request, timeout=TIMEOUT_S) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
            print(f"{error.code}: {error.read(500).decode(errors='replace')}", file=sys.stderr)
        except (OSError, http.client.HTTPException) as error:  # the latter: an answer that is no HTTP, or cut off
            print(f"Gravingdock is away: {type(error).__name__}: {error}", file=sys.stderr)
            return 0
        if status < 300:
            self.sequence += 1
        return status


def required(name: str) -> str:
    """Return a setting, from the environment or the file that NAME_FILE names."""
    path = os.environ.get(f"{name}_FILE")
    if path:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    value = os.environ.get(name, "").strip()
    if not value:
        sys.exit(f"Set {name}.")
    return value


def follow(path: str, reporter: str, sender: Sender, interval_s: float) -> None:
    """Send a full report, then what changed, for ever. Only the newest state is kept while Gravingdock is away.

    Nothing is sent while the engine is away: what runs is not known, and Gravingdock then says that we are silent.
    """
    known, full_at, sent_at, pause_s = None, 0.0, 0.0, interval_s
    while True:
        try:
            now = {entry["key"]: entry for entry in containers(path, reporter)}
        except Exception as error:  # whatever the engine answers: it is asked again
            print(f"The container engine is away: {type(error).__name__}: {error}", file=sys.stderr)
            time.sleep(interval_s)
            continue
        moment = time.monotonic()
        report = next_report(sender, known, now, is_full_due=moment - full_at > FULL_EVERY_S, silent_s=moment - sent_at)
        status = sender.send(report) if report is not None else None
        if report is not None and status is not None and 0 < status < 300:
            known, sent_at, pause_s = now, moment, interval_s
            full_at = moment if report["kind"] == "full" else full_at
        elif status == 409:
            known = None  # a report is missing there: the next one is full
            sender.sequence += 1
        elif status is not None:
            pause_s = min(pause_s * 2, 300)
            known = None if status else known
        time.sleep(pause_s)


def next_report(sender: Sender, known, now: dict, *, is_full_due: bool, silent_s: float):
    """Return the report to send now; None when there is nothing to say."""
    if known is None or is_full_due:
        return sender.report("full", list(now.values()), [])
    changed = [entry for key, entry in now.items() if known.get(key) != entry]
    gone = [key for key in known if key not in now]
    if changed or gone:
        return sender.report("delta", changed, gone)
    return sender.report("heartbeat", [], []) if silent_s >= HEARTBEAT_S else None


def main() -> None:
    """Report until killed."""
    path = os.environ.get("DOCKER_SOCKET", "/var/run/docker.sock")
    reporter = os.environ.get("REPORTER") or socket.gethostname()
    if "--print" in sys.argv[1:]:
        print(json.dumps(Sender("", "", "", reporter).report("full", containers(path, reporter), []), indent=1))
        return
    sender = Sender(required("GRAVINGDOCK_URL"), required("GRAVINGDOCK_CLUSTER"), required("AGENT_TOKEN"), reporter)
    if "--once" in sys.argv[1:]:
        status = sender.send(sender.report("full", containers(path, reporter), []))
        sys.exit(0 if 0 < status < 300 else 1)
    follow(path, reporter, sender, max(float(os.environ.get("INTERVAL_S", "20")), 1))


if __name__ == "__main__":
    main()
