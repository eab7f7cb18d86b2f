"""The manifest for `kubectl apply`: webhooks, agent, its rights and its network. Pure: from values to YAML."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

import yaml

from lifecycle.admission.constants import ANNOTATION

NAMESPACE: Final = "gravingdock"
TIMEOUT_S: Final = 3
AGENT_IMAGE: Final = "gravingdock:local"  # what `make image` builds
PLACEHOLDERS: Final = ("ADMISSION_SECRET", "AGENT_TOKEN", "AGENT_IMAGE")
EXCLUDED: Final = ["kube-system", "kube-node-lease", NAMESPACE]
_NAME: Final = {"app.kubernetes.io/name": "gravingdock-agent"}
_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")
_HEAD: Final = """\
# Gravingdock: admission and inventory of the cluster {cluster}.
# Fill in ${{ADMISSION_SECRET}}, ${{AGENT_TOKEN}} (a robot's token with runtime.report) and ${{AGENT_IMAGE}}, then:
#   envsubst < this-file | kubectl apply -f -
# Create it anew after a change of the mode to or from enforce: failurePolicy follows it.
# The agent may patch both webhook configurations `gravingdock`, to let them trust new certificates. Kubernetes cannot
# limit that to `caBundle`: without the verb `patch`, the agent only reports, and you apply new certificates.
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a manifest is for."""

    cluster: str
    admission_url: str  # https://host[:port]
    public_url: str  # where the agent sends its reports
    is_enforcing: bool
    is_mutating: bool = False
    bundle: str = ""  # PEM; "" when the address has a certificate that clusters trust anyway


def manifest_of(wish: Wish) -> str:
    """Return the YAML documents, with placeholders for what is secret."""
    webhooks = [_validating(wish)]
    if wish.is_mutating:
        webhooks.append(_mutating(wish))
    documents = [_namespace(), *_agent(wish), _network_policy(), *webhooks]
    text = yaml.safe_dump_all(documents, sort_keys=False, width=120, allow_unicode=True)
    return _HEAD.format(cluster=wish.cluster) + "---\n" + text


def _images(of: str) -> str:
    """Return a CEL expression: the images of a Pod, as lists one behind the other."""
    lists = [f"(has({of}.spec.{name}) ? {of}.spec.{name}.map(c, has(c.image) ? c.image : '') : [])" for name in _LISTS]
    volumes = (
        f"(has({of}.spec.volumes) ? {of}.spec.volumes.filter(v, has(v.image))"
        ".map(v, has(v.image.reference) ? v.image.reference : '') : [])"
    )
    return " + ".join([*lists, volumes])


def _annotation(of: str) -> str:
    there = f"has({of}.metadata.annotations) && '{ANNOTATION}' in {of}.metadata.annotations"
    return f"({there} ? {of}.metadata.annotations['{ANNOTATION}'] : '')"


def _asked_about_pods() -> str:
    return (
        f"request.operation == 'CREATE' || ({_images('object')}) != ({_images('oldObject')})"
        f" || {_annotation('object')} != {_annotation('oldObject')}"
    )


def _webhook(wish: Wish, name: str, groups: dict[str, list[str]], condition: str, path: str = "") -> dict[str, Any]:
    client: dict[str, Any] = {"url": f"{wish.admission_url}/admission/{wish.cluster}/${{ADMISSION_SECRET}}{path}"}
    if wish.bundle:
        client["caBundle"] = base64.b64encode(wish.bundle.encode()).decode()
    return {
        "name": f"{name}.admission.gravingdock.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "NoneOnDryRun",
        "failurePolicy": "Fail" if wish.is_enforcing and not path else "Ignore",
        "timeoutSeconds": TIMEOUT_S,
        "matchPolicy": "Equivalent",
        "clientConfig": client,
        "namespaceSelector": {
            "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": list(EXCLUDED)}]
        },
        "rules": [
            {
                "apiGroups": [group],
                "apiVersions": ["v1"],
                "operations": ["CREATE"] if path else ["CREATE", "UPDATE"],
                "resources": resources,
                "scope": "Namespaced",
            }
            for group, resources in groups.items()
        ],
        "matchConditions": [{"name": "images-change", "expression": condition}],
    }


def _validating(wish: Wish) -> dict[str, Any]:
    template = "request.operation == 'CREATE' || object.spec.template != oldObject.spec.template"
    # The template of a ReplicationController can be absent.
    loose = (
        "request.operation == 'CREATE' || (has(object.spec.template) ? object.spec.template : null)"
        " != (has(oldObject.spec.template) ? oldObject.spec.template : null)"
    )
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "gravingdock"},
        "webhooks": [
            _webhook(wish, "pods", {"": ["pods", "pods/ephemeralcontainers"]}, _asked_about_pods()),
            _webhook(
                wish,
                "controllers",
                {"apps": ["deployments", "statefulsets", "daemonsets", "replicasets"]},
                template,
            ),
            _webhook(wish, "replicationcontrollers", {"": ["replicationcontrollers"]}, loose),
            _webhook(
                wish, "podtemplates", {"": ["podtemplates"]},
                "request.operation == 'CREATE' || object.template != oldObject.template",
            ),
            _webhook(
                wish, "jobs", {"batch": ["jobs", "cronjobs"]},
                "request.operation == 'CREATE' || object.spec != oldObject.spec",
            ),
        ],
    }  # fmt: skip


def _mutating(wish: Wish) -> dict[str, Any]:
    webhook = _webhook(wish, "digests", {"": ["pods"]}, "request.operation == 'CREATE'", "/mutate")
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "gravingdock"},
        "webhooks": [webhook | {"reinvocationPolicy": "IfNeeded"}],
    }


def _namespace() -> dict[str, Any]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _agent(wish: Wish) -> list[dict[str, Any]]:
    """Return the agent with its account, its rights and its token. It reads no secret."""
    meta = {"name": "gravingdock-agent", "namespace": NAMESPACE}
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes", "namespaces"], "verbs": ["get", "list"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list"]},
        # Templates without Pods: what enforce would refuse when they start.
        {"apiGroups": [""], "resources": ["replicationcontrollers", "podtemplates"], "verbs": ["list"]},
        {
            "apiGroups": ["apps"],
            "resources": ["deployments", "statefulsets", "daemonsets", "replicasets"],
            "verbs": ["list"],
        },
        {"apiGroups": ["batch"], "resources": ["jobs", "cronjobs"], "verbs": ["list"]},
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"],
            "resourceNames": ["gravingdock"],
            "verbs": ["get", "patch"],
        },
    ]
    subject = {"kind": "ServiceAccount", "name": "gravingdock-agent", "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "gravingdock-agent"}
    variables = [
        {"name": "GRAVINGDOCK_URL", "value": wish.public_url},
        {"name": "GRAVINGDOCK_CLUSTER", "value": wish.cluster},
        {"name": "AGENT_TOKEN_FILE", "value": "/run/secrets/gravingdock/token"},
    ]
    container = {
        "name": "agent",
        "image": "${AGENT_IMAGE}",
        "command": ["python3", "/srv/gravingdock/agent/agent.py"],
        "env": variables,
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "token", "mountPath": "/run/secrets/gravingdock", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    pod = {
        "metadata": {"labels": dict(_NAME)},
        "spec": {
            "serviceAccountName": "gravingdock-agent",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "runAsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [
                {"name": "token", "secret": {"secretName": "gravingdock-agent"}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
            ],
        },
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "gravingdock-agent"},
            "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "gravingdock-agent"},
            "roleRef": role,
            "subjects": [subject],
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"token": "${AGENT_TOKEN}"}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**meta, "labels": dict(_NAME)},
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": dict(_NAME)},
                "template": pod,
            },
        },
    ]


def _network_policy() -> dict[str, Any]:
    """Return what the agent can reach: names, the API server and Gravingdock. Nothing reaches the agent."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "gravingdock-agent", "namespace": NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": dict(_NAME)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [
                {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
                # API servers and Gravingdock have addresses and ports that this manifest cannot know.
                {"ports": [{"protocol": "TCP"}]},
            ],
        },
    }
