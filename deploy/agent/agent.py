#!/usr/bin/env python3
"""Reports the containers of a Kubernetes cluster to Gravingdock. Needs Python 3.9 and the package `kubernetes`.

Settings, from the environment:
  GRAVINGDOCK_URL      such as https://gravingdock.example.com
  GRAVINGDOCK_CLUSTER  the cluster's name there
  AGENT_TOKEN          a robot's token with runtime.report, or AGENT_TOKEN_FILE
  GRAVINGDOCK_CA       a file with the certificates to trust; default: those of the system
  REPORTER             default: agent
  BUNDLE_EVERY_S       default: 30

It may list and watch pods, and list controllers, nodes, namespaces and network policies. It reads no Secret. From pod
specs it drops values of variables, arguments and commands before they leave the cluster, and what differs between the
pods of one workload. `--once` sends one full report.

It keeps the certificates that the webhook configurations `gravingdock` trust as Gravingdock wants them, and reports
what they hold. It changes `caBundle` only, and never to nothing. Without the right to patch, it only reports.

Pods are read as raw JSON in pages of 100, and only the entries of the report are kept, as JSON: 10,000 pods need less
than 120 MB.

It is one file, however long, so that a person can read all that runs in the cluster, and mount or copy it without a
build.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import queue
import re
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from datetime import datetime, timezone

from kubernetes import client, config
from urllib3 import Timeout

PAGE = 100
READ_DEADLINE_S = 90  # a watch that is silent for so long is dead, whatever its socket says: bookmarks come each minute
BLIND_AFTER_S = 2 * READ_DEADLINE_S  # without a word of the API server; Gravingdock then says that we are silent
WATCH_S = 600
SEND_EVERY_S = 2  # changes of this time are one report
HEARTBEAT_S = 30
AROUND_EVERY_S = 300  # nodes, namespaces and network policies
FULL_EVERY_S = 3600
BUNDLE_EVERY_S = float(os.environ.get("BUNDLE_EVERY_S") or 30)
BUNDLE_MAX_BYTES = 256 * 1024
HOOKS = "/apis/admissionregistration.k8s.io/v1"
CONTROLLERS = (  # kind, list, and the keys to its pod template
    ("ReplicationController", "/api/v1/replicationcontrollers", ("spec", "template")),
    ("PodTemplate", "/api/v1/podtemplates", ("template",)),
    ("Deployment", "/apis/apps/v1/deployments", ("spec", "template")),
    ("StatefulSet", "/apis/apps/v1/statefulsets", ("spec", "template")),
    ("DaemonSet", "/apis/apps/v1/daemonsets", ("spec", "template")),
    ("ReplicaSet", "/apis/apps/v1/replicasets", ("spec", "template")),
    ("Job", "/apis/batch/v1/jobs", ("spec", "template")),
    ("CronJob", "/apis/batch/v1/cronjobs", ("spec", "jobTemplate", "spec", "template")),
)
CONFIGURATIONS = (
    f"{HOOKS}/validatingwebhookconfigurations/gravingdock",
    f"{HOOKS}/mutatingwebhookconfigurations/gravingdock",
)
TIMEOUT_S = 30
DROPPED = {
    "args", "command", "httpHeaders", "volumeAttributes", "options", "managedFields",
    # What differs between the pods of a StatefulSet or DaemonSet, and decides nothing.
    "nodeName", "hostname", "affinity",
}  # fmt: skip
TOKEN_VOLUME = re.compile(r"\A(kube-api-access)-[a-z0-9]{5}\Z")  # the rest is random, for each pod
KEPT_ANNOTATIONS = ("gravingdock.io/", "container.apparmor.security.beta.kubernetes.io/")
CRON_TIME = re.compile(r"-[0-9]{8,11}\Z")


class Gone(Exception):
    """The API server forgot the version that we continue from (410): list again."""


class Refused(OSError):
    """The API server answered with an error."""

    def __init__(self, text, status):
        super().__init__(text)
        self.status = status


# --- what a pod says -------------------------------------------------------------------------------------------------


def skeleton(value, name="", depth=0):
    """Return a pod spec without values of variables, arguments and commands, the same for all pods of a workload."""
    if depth > 24:
        return None
    if name == "annotations":
        return {key: text for key, text in (value or {}).items() if key.startswith(KEPT_ANNOTATIONS)}
    if name == "env" and isinstance(value, list):
        return [
            {
                key: {"set": True} if key == "value" and inner else inner
                for key, inner in item.items()
                if key in VARIABLE
            }
            for item in value
        ]
    if isinstance(value, dict):
        return {key: skeleton(inner, key, depth + 1) for key, inner in value.items() if key not in DROPPED}
    if isinstance(value, list):
        return [skeleton(inner, "", depth + 1) for inner in value]
    return TOKEN_VOLUME.sub(r"\1", value) if name == "name" and isinstance(value, str) else value


VARIABLE = {"name", "value", "valueFrom"}


def workload_of(meta):
    """Return the controller of a pod: the Deployment of a ReplicaSet, and the CronJob of a Job."""
    owner = next((each for each in meta.get("ownerReferences") or [] if each.get("controller")), None)
    if owner is None:
        return {"kind": "Pod", "name": meta.get("name") or ""}
    kind, name = owner.get("kind") or "", owner.get("name") or ""
    hashed = (meta.get("labels") or {}).get("pod-template-hash")
    if kind == "ReplicaSet" and hashed and name.endswith(f"-{hashed}"):
        return {"kind": "Deployment", "name": name[: -len(hashed) - 1]}
    if kind == "Job" and CRON_TIME.search(name):
        return {"kind": "CronJob", "name": CRON_TIME.sub("", name)}
    return {"kind": kind, "name": name}


def is_done(item):
    """Return whether a Job has ended, so that no Pod of it starts any more."""
    status = item.get("status") or {}
    ended = [each for each in status.get("conditions") or [] if each.get("type") in ("Complete", "Failed")]
    return any(each.get("status") == "True" for each in ended)


def template_of(item, keys):
    """Return the pod template of a controller; None without one, or when another controller owns it."""
    meta, template = item["metadata"], item
    if any(each.get("controller") for each in meta.get("ownerReferences") or []):
        return None  # a ReplicaSet of a Deployment, a Job of a CronJob
    for key in keys:
        template = (template or {}).get(key)
    return template if isinstance(template, dict) and template.get("spec") else None


def bare_of(spec, annotations):
    """Return (sha256, skeleton) of a pod spec with the annotations that matter."""
    bare = skeleton(spec)
    noted = skeleton(annotations, "annotations")
    if noted:
        bare["annotations"] = noted
    return hashlib.sha256(json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()).hexdigest(), bare


def state_of(seen, is_over):
    state = seen.get("state") or {}
    for name in ("running", "terminated", "waiting"):
        if isinstance(state.get(name), dict):
            return ("terminated" if is_over else name), state[name].get("startedAt")
    return ("terminated" if is_over else "waiting"), None


def entries_of(pod, arch):
    """Return (entries of the report, skeleton or None) of a pod. A pod that is over keeps no skeleton."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    is_over = status.get("phase") in ("Succeeded", "Failed")
    sha, bare = bare_of(spec, meta.get("annotations"))
    node = spec.get("nodeName") or ""
    shared = {
        "namespace": meta.get("namespace") or "default", "workload": workload_of(meta), "pod": meta.get("name") or "",
        "node": node, "arch": arch.get(node, ""), "spec": sha,
    }  # fmt: skip
    entries = []
    for kind, listed, statuses in (
        ("init", "initContainers", "initContainerStatuses"),
        ("main", "containers", "containerStatuses"),
        ("ephemeral", "ephemeralContainers", "ephemeralContainerStatuses"),
    ):
        known = {each.get("name"): each for each in status.get(statuses) or []}
        for container in spec.get(listed) or []:
            seen = known.get(container.get("name")) or {}
            state, started_at = state_of(seen, is_over)
            entries.append(
                {
                    **shared, "key": f"{meta['uid']}/{kind}/{container.get('name')}", "kind": kind,
                    "name": container.get("name"), "image": container.get("image"),
                    "image_id": seen.get("imageID") or "", "container_id": seen.get("containerID") or "",
                    "state": state, "started_at": started_at,
                }
            )  # fmt: skip
    for volume in spec.get("volumes") or []:
        reference = (volume.get("image") or {}).get("reference")
        if reference:
            entries.append(
                {
                    **shared, "key": f"{meta['uid']}/volume/{volume.get('name')}", "kind": "volume",
                    "name": volume.get("name"), "image": reference, "image_id": reference.partition("@")[2],
                    "container_id": "", "state": "terminated" if is_over else "running",
                    "started_at": status.get("startTime"),
                }
            )  # fmt: skip
    return entries, sha, bare


# --- what the cluster says -------------------------------------------------------------------------------------------


class Cluster:
    """Reads raw JSON from the API server, with the client's configuration and connections.

    The client's models would need four times as much memory, and its raw calls differ between its versions.
    """

    def __init__(self):
        self.api = client.ApiClient()

    def get(self, path, query=(), deadline_s=TIMEOUT_S, stream=False):
        address = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        answer = self._send("GET", address, deadline_s)
        if answer.status == 200 and stream:
            return answer
        return self._read(answer, f"GET {path}")

    def patch(self, path, changes):
        """Apply a JSON patch (RFC 6902); raises Refused."""
        body = json.dumps(changes).encode()
        answer = self._send("PATCH", path, TIMEOUT_S, body, {"Content-Type": "application/json-patch+json"})
        return self._read(answer, f"PATCH {path}")

    def _send(self, method, address, deadline_s, body=None, more=None):
        settings = self.api.configuration
        headers = {"Accept": "application/json", **(more or {})}
        for name in ("BearerToken", "authorization"):  # by version of the client
            value = settings.get_api_key_with_prefix(name)
            if value:
                headers["Authorization"] = value
        return self.api.rest_client.pool_manager.request(
            method,
            f"{settings.host}{address}",
            headers=headers,
            body=body,
            timeout=Timeout(connect=TIMEOUT_S, read=deadline_s),
            preload_content=False,
            retries=False,
        )

    def _read(self, answer, what):
        try:
            body = answer.read(decode_content=True)
        finally:
            answer.release_conn()
        if answer.status == 410:
            raise Gone
        if answer.status != 200:
            raise Refused(f"{what} answered {answer.status}: {body[:200]!r}", answer.status)
        return json.loads(body)

    def pages(self, path):
        """Yield the pages of a list; raises Gone when it changed too much meanwhile."""
        token = ""
        while True:
            page = self.get(path, [("limit", str(PAGE)), *([("continue", token)] if token else [])])
            yield page
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    def watch(self, path, version):
        """Yield the events after a version; raises Gone. Ends when the server ends it; OSError when it is dead."""
        answer = self.get(
            path,
            [
                ("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", version),
                ("timeoutSeconds", str(WATCH_S)),
            ],
            READ_DEADLINE_S,
            stream=True,
        )  # fmt: skip
        try:
            rest = b""
            for piece in answer.stream(65536, decode_content=True):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line.strip():
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            raise Gone
                        yield event
        finally:
            answer.release_conn()


def json_of(value):
    """Return a value as JSON, in bytes: shorter in memory than a text."""
    return json.dumps(value, separators=(",", ":")).encode()


class Inventory:
    """The newest state of the cluster, as entries of a report."""

    def __init__(self):
        self.lock = threading.Lock()
        self.arch, self.namespaces = {}, []
        self.seen_at = time.monotonic()  # the API server answered last
        self.bundle = None  # sha256 of what all our webhooks trust; "": not the same; None: not known
        # Kept as JSON, which needs a third of the memory of objects, and is sent as it is.
        self.entries = {}  # {pod uid: [(key, (entry as JSON, sha256 of its skeleton))]}
        self.specs = {}  # {sha256: [skeleton as JSON, number of pods]}
        self.of_pod = {}  # {pod uid: sha256}
        self.places = {}  # {uid of a pod that is not over: namespace, kind and name of its workload}
        self.templates = None  # [(place, sha256, skeleton as JSON)] of controllers; None: they may not be read
        self.around = 0  # how often they were read

    def put(self, pod):
        uid = pod["metadata"]["uid"]
        entries, sha, bare = entries_of(pod, self.arch)
        sha = sys.intern(sha)
        with self.lock:
            self._forget(uid)
            self.entries[uid] = [(entry["key"], (json_of(entry), sha)) for entry in entries]
            self.of_pod[uid] = sha
            if entries and any(entry["state"] != "terminated" for entry in entries):
                self.places[uid] = sys.intern(place_of(entries[0]["namespace"], **entries[0]["workload"]))
            if sha not in self.specs:
                self.specs[sha] = [json_of(bare), 0]
            self.specs[sha][1] += 1

    def drop(self, uid):
        with self.lock:
            self._forget(uid)

    def keep_only(self, uids):
        with self.lock:
            for uid in set(self.entries) - uids:
                self._forget(uid)

    def _forget(self, uid):
        self.entries.pop(uid, None)
        self.places.pop(uid, None)
        sha = self.of_pod.pop(uid, None)
        if sha is not None:
            self.specs[sha][1] -= 1
            if not self.specs[sha][1]:
                del self.specs[sha]

    def now(self):
        """Return ({key: (entry as JSON, sha256 of its skeleton)}, {sha256: skeleton as JSON}, namespaces)."""
        with self.lock:
            entries = {key: entry for each in self.entries.values() for key, entry in each}
            return entries, {sha: text for sha, (text, _) in self.specs.items()}, list(self.namespaces)

    def without_pods(self):
        """Return (templates of controllers that have no Pod now, {sha256: skeleton as JSON}); None: not known."""
        with self.lock:
            if self.templates is None:
                return None, {}
            busy = set(self.places.values())
            rows = [row for row in self.templates if row[0] not in busy]
        listed = []
        for place, sha, _ in rows:
            namespace, kind, name = place.split("/")
            listed.append({"namespace": namespace, "kind": kind, "name": name, "spec": sha})
        return listed, {sha: text for _, sha, text in rows}


def place_of(namespace, kind, name):
    return f"{namespace}/{kind}/{name}"


def read_templates(cluster):
    """Return the templates of all controllers, each as (place, sha256, skeleton as JSON); None without the right."""
    found = []
    for kind, path, keys in CONTROLLERS:
        try:
            for page in cluster.pages(path):
                for item in page.get("items") or []:
                    template = template_of(item, keys)
                    if template is None or (kind == "Job" and is_done(item)):
                        continue
                    noted = (template.get("metadata") or {}).get("annotations")
                    sha, bare = bare_of(template["spec"], noted)
                    meta = item["metadata"]
                    found.append((place_of(meta.get("namespace") or "default", kind, meta["name"]), sha, json_of(bare)))
        except Refused:  # an older manifest without the right, or no such list: pods are reported nevertheless
            return None
    return found


def look_around(cluster, inventory):
    """Read the platforms of nodes, the Pod Security level of namespaces, and how many network policies they have."""
    arch = {}
    for page in cluster.pages("/api/v1/nodes"):
        for node in page.get("items") or []:
            info = (node.get("status") or {}).get("nodeInfo") or {}
            arch[node["metadata"]["name"]] = info.get("architecture") or ""
    counts = {}
    for page in cluster.pages("/apis/networking.k8s.io/v1/networkpolicies"):
        for policy in page.get("items") or []:
            name = policy["metadata"]["namespace"]
            counts[name] = counts.get(name, 0) + 1
    namespaces = []
    for page in cluster.pages("/api/v1/namespaces"):
        for each in page.get("items") or []:
            name, labels = each["metadata"]["name"], each["metadata"].get("labels") or {}
            level = labels.get("pod-security.kubernetes.io/enforce", "")
            namespaces.append({"name": name, "network_policies": counts.get(name, 0), "pss": level})
    inventory.arch, inventory.namespaces = arch, namespaces
    templates = read_templates(cluster)
    with inventory.lock:
        inventory.templates, inventory.around = templates, inventory.around + 1


def follow(cluster, inventory, changed):
    """List the pods, then follow their changes, for ever. `changed` wakes the sender."""
    while True:
        try:
            around_at = time.monotonic()
            look_around(cluster, inventory)
            uids, version = set(), ""
            for page in cluster.pages("/api/v1/pods"):
                for pod in page.get("items") or []:
                    inventory.put(pod)
                    uids.add(pod["metadata"]["uid"])
                version = page["metadata"]["resourceVersion"]
            inventory.keep_only(uids)
            inventory.seen_at = time.monotonic()
            changed.put("listed")
            while True:
                if time.monotonic() - around_at > AROUND_EVERY_S:
                    around_at = time.monotonic()
                    look_around(cluster, inventory)
                for event in cluster.watch("/api/v1/pods", version):
                    pod = event["object"]
                    version = pod["metadata"]["resourceVersion"]
                    inventory.seen_at = time.monotonic()
                    if event["type"] == "DELETED":
                        inventory.drop(pod["metadata"]["uid"])
                    elif event["type"] != "BOOKMARK":
                        inventory.put(pod)
                    else:
                        continue
                    changed.put("watched")
        except Gone:
            continue  # list again, at once
        except Exception as error:  # whatever the client raises: the list is read again
            say(f"The API server is away: {type(error).__name__}: {str(error)[:300]}")
            time.sleep(5)


# --- whom the webhooks trust -----------------------------------------------------------------------------------------


def bundles_of(configuration):
    """Return [(index of a webhook, the certificates that it trusts as bytes)] of a webhook configuration."""
    found = []
    for index, hook in enumerate(configuration.get("webhooks") or []):
        trusted = (hook.get("clientConfig") or {}).get("caBundle")
        if trusted:  # without one, the cluster trusts the address anyway
            found.append((index, base64.b64decode(trusted)))
    return found


def is_bundle(text):
    """Return whether a text is one certificate or more in PEM, and nothing else that matters."""
    try:
        count = len(ssl.create_default_context(cadata=text).get_ca_certs())
    except (ssl.SSLError, ValueError):
        return False
    return 0 < count <= text.count("-----BEGIN CERTIFICATE-----") and len(text) <= BUNDLE_MAX_BYTES


def trust(cluster, wanted):
    """Let our webhooks trust `wanted` (PEM, or "" to change nothing); return the sha256 of what they trust then.

    "" when they do not trust the same, None when there is no webhook with certificates.
    """
    held = set()
    for path in CONFIGURATIONS:
        try:
            present = cluster.get(path)
        except Refused as error:
            if error.status in (403, 404):  # not applied, or an older manifest without the right to read it
                continue
            raise
        bundles = bundles_of(present)
        behind = [index for index, content in bundles if content != wanted.encode()]
        if wanted and behind:
            # Only if nobody changed it since, so that the numbers of the webhooks are right.
            version = present["metadata"]["resourceVersion"]
            changes = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
            encoded = base64.b64encode(wanted.encode()).decode()
            for index in behind:
                at = f"/webhooks/{index}/clientConfig/caBundle"
                changes.append({"op": "replace", "path": at, "value": encoded})
            try:
                bundles = bundles_of(cluster.patch(path, changes))
                say(f"{path} trusts the new certificates.")
            except Refused as error:
                say(f"The certificates of {path} stay: {str(error)[:300]}")
        held.update(hashlib.sha256(content).hexdigest() for _, content in bundles)
    return None if not held else held.pop() if len(held) == 1 else ""


def keep_trusting(cluster, inventory, changed, sender):
    """Follow the certificates that Gravingdock wants to be trusted, for ever."""
    while True:
        try:
            wanted = sender.bundle()
            if wanted and not is_bundle(wanted):
                say("Gravingdock sent certificates that cannot be read. Nothing is changed.")
                wanted = ""
            now = trust(cluster, wanted)
            if now != inventory.bundle:
                inventory.bundle = now
                changed.put("bundle")
        except Exception as error:  # whatever the client raises: it is tried again
            say(f"The certificates cannot be compared: {type(error).__name__}: {str(error)[:300]}")
        time.sleep(BUNDLE_EVERY_S)


# --- what we send ----------------------------------------------------------------------------------------------------


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error. Followed, it would turn the report into a GET, and show the token to another host."""

    def redirect_request(self, *_):
        """Follow nothing: urllib then raises HTTPError."""


class Sender:
    """Sends reports, with a boot id and a growing number."""

    def __init__(self, url, cluster, token, reporter):
        self.base = f"{url.rstrip('/')}/api/v1/clusters/{urllib.parse.quote(cluster, safe='')}/"
        self.token, self.reporter, self.boot, self.sequence = token, reporter, str(uuid.uuid4()), 0
        trust = ssl.create_default_context(cafile=os.environ.get("GRAVINGDOCK_CA") or None)
        self.opener = urllib.request.build_opener(NoRedirects, urllib.request.HTTPSHandler(context=trust))

    def bundle(self):
        """Return the certificates that the webhooks should trust, as PEM; "" when nothing should change."""
        request = urllib.request.Request(f"{self.base}bundle/", headers={"Authorization": f"Bearer {self.token}"})
        try:
            with self.opener.open(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read(2 * BUNDLE_MAX_BYTES)).get("bundle") or ""
        except (OSError, ValueError, http.client.HTTPException) as error:  # away, or a version that has none yet
            say(f"Gravingdock named no certificates: {error}")
            return ""

    def send(self, kind, entries, gone, specs, namespaces, *, bundle=None, templates=None):
        """Return the status of the answer; 0 when Gravingdock is away. Entries and specs are JSON already."""
        head = {
            "schema": "gravingdock.report.v1", "report_id": str(uuid.uuid4()), "boot": self.boot,
            "sequence": self.sequence + 1, "kind": kind, "observed_at": datetime.now(timezone.utc).isoformat(),
            "reporter": self.reporter, "gone": gone, "namespaces": namespaces,
        }  # fmt: skip
        if bundle is not None:
            head["bundle_sha256"] = bundle
        if templates is not None:
            head["templates"] = templates
        request = urllib.request.Request(
            f"{self.base}reports/",
            data=packed(head, entries, specs),
            method="POST",
            headers={
                "Authorization": f"Bearer {self.token}", "Content-Type": "application/json", "Content-Encoding": "gzip",
            },
        )  # fmt: skip
        try:
            with self.opener.open(request, timeout=TIMEOUT_S) as answer:
                self.sequence += 1
                return answer.status
        except urllib.error.HTTPError as error:
            say(f"{error.code}: {error.read(500).decode(errors='replace')}")
            return error.code
        except (OSError, http.client.HTTPException) as error:  # the latter: an answer that is no HTTP, or cut off
            say(f"Gravingdock is away: {type(error).__name__}: {error}")
            return 0


def packed(head, entries, specs):
    """Return a report as gzip. It is never whole in memory: uncompressed, it can have 30 MB."""
    target = io.BytesIO()
    with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=5) as body:
        body.write(json_of(head)[:-1] + b',"containers":[')
        for number, entry in enumerate(entries):
            body.write(b"," + entry if number else entry)
        body.write(b'],"specs":{')
        for number, (sha, spec) in enumerate(specs.items()):
            body.write(b'%s"%s":%s' % (b"," if number else b"", sha.encode(), spec))
        body.write(b"}}")
    return target.getvalue()


def say(text):
    print(text, file=sys.stderr, flush=True)


def send_for_ever(inventory, changed, sender, once):
    """Send a full report first, then what changed. While Gravingdock is away, only the newest state is kept."""
    known, known_specs, full_at, sent_at, pause_s, said, told = None, set(), 0.0, 0.0, SEND_EVERY_S, None, 0
    changed.get()  # the first list
    while True:
        if time.monotonic() - inventory.seen_at > BLIND_AFTER_S:
            say("Nothing is reported while the API server is away: what runs is not known.")
            time.sleep(HEARTBEAT_S)
            continue
        now, specs, namespaces = inventory.now()
        moment, status, bundle, around = time.monotonic(), None, inventory.bundle, inventory.around
        is_full = known is None or moment - full_at > FULL_EVERY_S
        templates, bare = inventory.without_pods() if is_full or around != told else (None, {})
        if is_full:
            every = [entry for entry, _ in now.values()]
            status = sender.send("full", every, [], {**bare, **specs}, namespaces, bundle=bundle, templates=templates)
            full_at = moment if 0 < status < 300 else full_at
        else:
            changes = [row for key, row in now.items() if known.get(key) != row]
            new, wanted = [entry for entry, _ in changes], {sha for _, sha in changes} - known_specs
            gone = [key for key in known if key not in now]
            if new or gone or templates is not None:
                added = {**bare, **{sha: text for sha, text in specs.items() if sha in wanted}}
                status = sender.send("delta", new, gone, added, namespaces, bundle=bundle, templates=templates)
            elif moment - sent_at >= HEARTBEAT_S or bundle != said:
                status = sender.send("heartbeat", [], [], {}, [], bundle=bundle)
        if once:
            sys.exit(0 if status and status < 300 else 1)
        if status is not None and 0 < status < 300:
            known, known_specs, sent_at, pause_s, said = now, set(specs), moment, SEND_EVERY_S, bundle
            told = around
        elif status == 409:
            known, sender.sequence = None, sender.sequence + 1  # a report is missing there: the next one is full
        elif status is not None:
            pause_s = min(pause_s * 2, 60)
            known = None if status else known
        try:
            changed.get(timeout=HEARTBEAT_S)
        except queue.Empty:
            continue
        time.sleep(pause_s)
        while not changed.empty():
            changed.get()


def required(name):
    path = os.environ.get(f"{name}_FILE")
    if path:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    value = os.environ.get(name, "").strip()
    if not value:
        sys.exit(f"Set {name}.")
    return value


def main():
    """Report until killed."""
    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    sender = Sender(
        required("GRAVINGDOCK_URL"), required("GRAVINGDOCK_CLUSTER"), required("AGENT_TOKEN"),
        os.environ.get("REPORTER", "agent"),
    )  # fmt: skip
    inventory, changed = Inventory(), queue.SimpleQueue()
    is_once = "--once" in sys.argv[1:]
    threading.Thread(target=follow, args=(Cluster(), inventory, changed), daemon=True).start()
    if not is_once:
        threading.Thread(target=keep_trusting, args=(Cluster(), inventory, changed, sender), daemon=True).start()
    send_for_ever(inventory, changed, sender, is_once)


if __name__ == "__main__":
    main()
