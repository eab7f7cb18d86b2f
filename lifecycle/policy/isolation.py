"""Isolation: how well a pod and its images are kept apart from their node and from each other. Pure.

`judge` judges a pod, `judge_image` an image without one. Both run only the checks that are not off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lifecycle.core.errors import Malformed
from lifecycle.policy import isolation_more as more
from lifecycle.policy import isolation_pod as pss
from lifecycle.policy.isolation_types import (
    CONTAINERS_MAX,
    Container,
    Fields,
    Found,
    ImageConfig,
    Kind,
    Pod,
    PodContext,
    Profile,
    Result,
    UnreadableField,
    Verdict,
    entries,
    mapping,
    text,
)

OFF: Final = "off"
OBSERVE: Final = "observe"
_NO_CONTEXT: Final = PodContext()
_LISTS: Final = (
    ("initContainers", Kind.INIT),
    ("containers", Kind.MAIN),
    ("ephemeralContainers", Kind.EPHEMERAL),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what it is called, where it is from, and what to do when it fails."""

    id: str
    title: str
    fix: str
    run: Callable[[Pod], Iterator[Found]]
    profiles: tuple[Profile, ...] = ()  # the Pod Security Standards that a failure can break
    cis_kubernetes: str = ""  # sections of the CIS Kubernetes Benchmark 1.8
    cis_docker: str = ""  # sections of the CIS Docker Benchmark 1.6
    of_image: more.ImageCheck | None = None  # judges an image alone


_B, _R = Profile.BASELINE, Profile.RESTRICTED
_SECURITY: Final = "securityContext"
CHECKS: Final[Mapping[str, Check]] = {
    check.id: check
    for check in (
        Check("privileged", "Not privileged", f"Remove {_SECURITY}.privileged.", pss.privileged, (_B,), "5.2.2"),
        Check("host-pid", "Own process namespace", "Remove hostPID.", pss.host_namespace("hostPID"), (_B,), "5.2.3"),
        Check("host-ipc", "Own IPC namespace", "Remove hostIPC.", pss.host_namespace("hostIPC"), (_B,), "5.2.4"),
        Check("host-network", "Own network", "Remove hostNetwork.", pss.host_namespace("hostNetwork"), (_B,), "5.2.5"),
        Check(
            "privilege-escalation",
            "No privilege escalation",
            f"Set {_SECURITY}.allowPrivilegeEscalation to false.",
            pss.privilege_escalation,
            (_R,),
            "5.2.6",
        ),
        Check(
            "run-as-root",
            "Does not run as root",
            f"Set {_SECURITY}.runAsNonRoot to true, and a number other than 0 as USER of the image or as runAsUser.",
            pss.run_as_root,
            (_R,),
            "5.2.7",
            "4.1",
            more.user_of_image,
        ),
        Check(
            "capabilities",
            "Few capabilities",
            f'Set {_SECURITY}.capabilities.drop to ["ALL"], and add NET_BIND_SERVICE at most.',
            pss.capabilities,
            (_B, _R),
            "5.2.8-10",
        ),
        Check(
            "host-path",
            "No path of the node",
            "Use a persistentVolumeClaim, a configMap or an emptyDir.",
            pss.host_path,
            (_B,),
            "5.2.12",
        ),
        Check("host-ports", "No port of the node", "Remove hostPort; use a Service.", pss.host_ports, (_B,), "5.2.13"),
        Check(
            "host-process",
            "No host process",
            "Remove windowsOptions.hostProcess.",
            pss.host_process,
            (_B,),
            "5.2.11",
        ),
        Check(
            "host-probes",
            "Probes stay in the pod",
            "Remove host from probes and lifecycle hooks.",
            pss.host_probes,
            (_B,),
        ),
        Check(
            "seccomp",
            "Seccomp profile",
            f"Set {_SECURITY}.seccompProfile.type to RuntimeDefault, for the pod or each container.",
            pss.seccomp,
            (_B, _R),
            "5.7.2",
        ),
        Check(
            "apparmor",
            "AppArmor on",
            "Remove the AppArmor profile, or set RuntimeDefault or Localhost.",
            pss.apparmor,
            (_B,),
        ),
        Check("selinux", "SELinux options", "Remove seLinuxOptions.", pss.selinux, (_B,)),
        Check("sysctls", "Safe kernel settings", "Remove the sysctl.", pss.sysctls, (_B,)),
        Check("proc-mount", "/proc masked", f"Remove {_SECURITY}.procMount.", pss.proc_mount, (_B, _R)),
        Check(
            "volume-types",
            "Managed volumes",
            "Use a persistentVolumeClaim or another volume that Kubernetes manages.",
            pss.volume_types,
            (_R,),
        ),
        Check(
            "read-only-root",
            "Read-only root file system",
            f"Set {_SECURITY}.readOnlyRootFilesystem to true, and mount an emptyDir where it writes.",
            more.read_only_root,
            cis_docker="5.13",
        ),
        Check(
            "runtime-socket",
            "No socket of the runtime",
            "Remove the volume.",
            more.runtime_socket,
            cis_docker="5.32",
        ),
        Check(
            "secret-in-env",
            "No secrets in the environment",
            "Mount the secret as a file, and keep it out of the image.",
            more.secret_in_env,
            cis_kubernetes="5.4.1",
            cis_docker="4.10",
            of_image=more.secrets_of_image,
        ),
        Check(
            "service-account-token",
            "No API token",
            "Set automountServiceAccountToken to false.",
            more.service_account_token,
            cis_kubernetes="5.1.6",
        ),
        Check(
            "network-policy",
            "Network policy",
            "Add a NetworkPolicy that selects the pod.",
            more.network_policy,
            cis_kubernetes="5.3.2",
        ),
        Check(
            "default-namespace",
            "Own namespace",
            "Deploy to another namespace than default.",
            more.default_namespace,
            cis_kubernetes="5.7.4",
        ),
        Check(
            "limits",
            "Resource limits",
            "Set resources.limits.memory and resources.requests.cpu.",
            more.limits,
            cis_docker="5.11-12",
        ),
        Check(
            "setuid",
            "No setuid files",
            "Remove the setuid and setgid bits in the image.",
            more.setuid,
            cis_docker="4.8",
            of_image=more.setuid_of_image,
        ),
        Check(
            "healthcheck",
            "Health check",
            "Add a livenessProbe or readinessProbe, or a HEALTHCHECK to the image.",
            more.healthcheck,
            cis_docker="4.6",
            of_image=more.healthcheck_of_image,
        ),
        Check(
            "ssh",
            "No SSH server",
            "Remove the SSH server and port 22.",
            more.ssh,
            cis_docker="5.7",
            of_image=more.ssh_of_image,
        ),
    )
}
IMAGE_CHECKS: Final = tuple(check.id for check in CHECKS.values() if check.of_image is not None)


def checks_of(profile: str) -> frozenset[str]:
    """Return the ids of the checks that belong to `baseline`, `restricted` (with baseline), or `all`."""
    if profile == "all":
        return frozenset(CHECKS)
    wanted = {Profile.BASELINE} if profile == Profile.BASELINE else {Profile.BASELINE, Profile.RESTRICTED}
    return frozenset(check.id for check in CHECKS.values() if wanted & set(check.profiles))


def judge(
    pod_spec: Fields,
    image_configs: Mapping[str, ImageConfig] | None = None,
    modes: Mapping[str, str] | None = None,
    context: PodContext = _NO_CONTEXT,
) -> tuple[Verdict, ...]:
    """Return the verdicts about a pod: per container, or about the whole pod, in the order of CHECKS.

    `image_configs` has what is known of images, by the reference as the container's `image` has it. `modes` is
    {check: off|observe|warn|enforce}; a check that it does not name is off. Without `modes`, all checks run.
    A pod is refused when one verdict `blocks`. Raises Malformed when it is no pod spec at all.
    """
    wanted = CHECKS if modes is None else {name: CHECKS[name] for name, mode in modes.items() if _runs(name, mode)}
    if not wanted:
        return ()
    pod = _pod(pod_spec, image_configs or {}, context)
    return tuple(
        verdict
        for check in CHECKS.values()
        if check.id in wanted
        for verdict in _verdicts(check, pod, OBSERVE if modes is None else modes[check.id])
    )


def _runs(name: str, mode: str) -> bool:
    return name in CHECKS and mode != OFF


def judge_image(image: ImageConfig | None, modes: Mapping[str, str] | None = None) -> tuple[Verdict, ...]:
    """Return the verdicts about an image without a pod: those of IMAGE_CHECKS. `modes` as for `judge`."""
    found = []
    for name in IMAGE_CHECKS:
        check, mode = CHECKS[name], OBSERVE if modes is None else modes.get(name, OFF)
        if check.of_image is None or mode == OFF:
            continue
        result, summary = check.of_image(image)
        fix = "" if result is Result.PASS else check.fix
        found.append(Verdict(name, result, Kind.IMAGE, "", "/config", summary, fix, mode=mode))
    return tuple(found)


def breaks(verdicts: Iterable[Verdict], profile: Profile) -> bool:
    """Return whether the API server's Pod Security admission refuses the pod at this level. Unknown counts as broken.

    Needs the verdicts of all checks of the profile.
    """
    levels = {Profile.BASELINE} if profile is Profile.BASELINE else {Profile.BASELINE, Profile.RESTRICTED}
    return any(
        (verdict.result is Result.FAIL and verdict.profile in levels)
        or (verdict.result is Result.UNKNOWN and bool(set(CHECKS[verdict.check].profiles) & levels))
        for verdict in verdicts
    )


def _pod(spec: Fields, images: Mapping[str, ImageConfig], context: PodContext) -> Pod:
    at = context.pointer
    if not isinstance(spec, Mapping) or not isinstance(spec.get("containers"), list) or not spec["containers"]:
        raise Malformed(f"{at}/containers must be a list of at least one container.")
    found = []
    for key, kind in _LISTS:
        for position, fields in enumerate(entries(spec, key, at)):
            where = f"{at}/{key}/{position}"
            found.append(
                Container(
                    kind,
                    text(fields, "name", where),
                    where,
                    fields,
                    mapping(fields, "securityContext", where),
                    images.get(text(fields, "image", where)),
                )
            )
    if len(found) > CONTAINERS_MAX:
        raise Malformed(f"{at} has more than {CONTAINERS_MAX} containers.")
    return Pod(spec, at, mapping(spec, "securityContext", at), tuple(found), context)


def _verdicts(check: Check, pod: Pod, mode: str) -> Iterator[Verdict]:
    found: list[Found] = []
    try:
        found.extend(check.run(pod))
    except UnreadableField as error:
        yield Verdict(check.id, Result.UNKNOWN, Kind.POD, "", error.pointer, error.message, check.fix, mode=mode)
        return
    for one in found:
        kind, name = (one.container.kind, one.container.name) if one.container else (Kind.POD, "")
        fix = check.fix if one.result in {Result.FAIL, Result.UNKNOWN} else ""
        yield Verdict(check.id, one.result, kind, name, one.at, one.summary, fix, one.profile, mode)


def modes_of(pairs: Iterable[tuple[Iterable[str], str]]) -> dict[str, str]:
    """Return {check: mode} from (checks, mode) pairs; the firmest mode of a check counts."""
    order = ("off", "observe", "warn", "enforce")
    found: dict[str, str] = {}
    for checks, mode in pairs:
        for name in checks:
            if name in CHECKS and order.index(mode) > order.index(found.get(name, OFF)):
                found[name] = mode
    return found


def counts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Return how many verdicts there are of each result."""
    found = dict.fromkeys((result.value for result in Result), 0)
    for verdict in verdicts:
        found[verdict.result.value] += 1
    return found


def overall(verdicts: Iterable[Verdict]) -> Result:
    """Return fail when one fails, else unknown when one is unknown, else pass."""
    results: set[Any] = {verdict.result for verdict in verdicts}
    return next((result for result in (Result.FAIL, Result.UNKNOWN) if result in results), Result.PASS)
