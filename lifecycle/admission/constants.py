"""Names and limits of admission reviews. This module needs no Django, like all that answers reviews."""

from __future__ import annotations

from typing import Final

ANNOTATION: Final = "gravingdock.io/break-glass"
REASON_MIN: Final = 10  # characters of a break-glass reason
REVIEW_WITHIN_S: Final = 86_400  # of a break-glass; then it opens nothing until a reviewer calls it justified
BODY_MAX_BYTES: Final = 8 * 1024 * 1024  # object and oldObject; the API server cuts requests at 3 MiB
BIG_BYTES: Final = 1024 * 1024  # bodies beyond are read into objects one after the other
READ_S: Final = 10.0  # of a body; an API server gives up before
THREADS: Final = 64  # of the admission server; a review is work for one core, but its body may come slowly
DEPTH_MAX: Final = 64
IMAGES_MAX: Final = 1000  # of an object; with more it is refused
GROUPS_MAX: Final = 10_000  # of a user; the others do not count
UID_MAX: Final = 128
TEXT_MAX: Final = 253  # characters of names that are recorded
REFERENCE_MAX: Final = 500  # characters of a reference in an answer
JUDGED_MAX: Final = 700  # characters of a digest, or of a reference without one
MESSAGE_MAX: Final = 1000  # characters
WARNING_MAX: Final = 120  # characters; the API server cuts longer ones
WARNINGS_MAX: Final = 20  # the API server takes 4,096 characters in all
SHOWN_IMAGES_MAX: Final = 30  # of a decision, as it is recorded

# Groups and kinds that are judged, and the keys from the object to its pod template; a Pod is its own.
POD: Final = ("", "Pod")
TEMPLATES: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("", "ReplicationController"): ("spec", "template"),
    ("", "PodTemplate"): ("template",),
    ("apps", "Deployment"): ("spec", "template"),
    ("apps", "StatefulSet"): ("spec", "template"),
    ("apps", "DaemonSet"): ("spec", "template"),
    ("apps", "ReplicaSet"): ("spec", "template"),
    ("batch", "Job"): ("spec", "template"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}
# Only these carry an annotation from an owner to what they create. An operator's own account has to be listed.
CONTROLLERS: Final = frozenset(
    f"system:serviceaccount:kube-system:{name}-controller"
    for name in ("deployment", "replicaset", "replication", "statefulset", "daemon-set", "job", "cronjob")
)
LISTS: Final = (
    ("initContainers", "init container"),
    ("containers", "container"),
    ("ephemeralContainers", "ephemeral container"),
)
PLACEHOLDER: Final = "auto"  # Istio: a later hook puts an image here; the Pod is judged with it
