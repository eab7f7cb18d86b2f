"""The check of manifests in `/api/v1/isolation/`. Nothing is stored."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.api.serializing import StrictSerializer
from lifecycle.core.errors import Malformed
from lifecycle.evidence.isolation import PROFILES, JudgedPod, judge_manifests
from lifecycle.policy.isolation import CHECKS, counts
from lifecycle.policy.isolation_reading import TEXT_MAX, documents_of, manifests_of
from lifecycle.policy.isolation_types import Result

_RESULTS = [result.value for result in Result]


class IsolationBody(StrictSerializer):
    """What to check: one of `object` and `manifest`."""

    object = serializers.DictField(
        required=False, help_text="A Pod, a controller object such as a Deployment, a List, or a bare pod spec"
    )
    manifest = serializers.CharField(
        required=False, max_length=TEXT_MAX, trim_whitespace=False, help_text="YAML or JSON, also several documents"
    )
    digest = serializers.CharField(
        required=False,
        default="",
        allow_blank=True,
        max_length=135,
        help_text="Image of the main container, if it names no digest itself. You must be able to see it.",
    )
    profile = serializers.ChoiceField(choices=PROFILES, required=False, default="restricted")
    environment = serializers.CharField(
        required=False,
        default="",
        allow_blank=True,
        max_length=130,
        help_text="Such as shop/production: its rules at admission give each verdict its mode",
    )


class IsolationVerdictSerializer(serializers.Serializer[Any]):
    """What one check says about one container, or about the pod as a whole."""

    check = serializers.CharField(help_text="Id of the check, for example run-as-root")
    title = serializers.CharField()
    result = serializers.ChoiceField(choices=_RESULTS, help_text="Unknown is never a pass")
    kind = serializers.CharField(help_text="pod, init, main or ephemeral")
    container = serializers.CharField(help_text="Name; empty for the pod")
    pointer = serializers.CharField(help_text="JSON pointer into the document")
    summary = serializers.CharField()
    fix = serializers.CharField(help_text="What to do; empty for a pass")
    profile = serializers.CharField(
        allow_null=True, help_text="The Pod Security Standard that the failure breaks; null for none"
    )
    profiles = serializers.ListField(child=serializers.CharField(), help_text="Standards with this check")
    cis_kubernetes = serializers.CharField(help_text="Section of the CIS Kubernetes Benchmark; empty for none")
    cis_docker = serializers.CharField(help_text="Section of the CIS Docker Benchmark; empty for none")
    mode = serializers.CharField(help_text="observe without an environment; else off, observe, warn or enforce")


class JudgedPodSerializer(serializers.Serializer[Any]):
    document = serializers.IntegerField(help_text="Position of the document, from 1")
    kind = serializers.CharField(help_text="Pod, Deployment or another; PodSpec for a bare pod spec")
    name = serializers.CharField()
    namespace = serializers.CharField(allow_null=True, help_text="Null if the document names none")
    result = serializers.ChoiceField(choices=_RESULTS, help_text="The worst of its verdicts")
    is_blocked = serializers.BooleanField(help_text="Whether a rule of the environment that enforces is not met")
    pod_security = serializers.DictField(
        child=serializers.BooleanField(), help_text="Whether Kubernetes lets it in at baseline and at restricted"
    )
    counts = serializers.DictField(child=serializers.IntegerField(), help_text="Number of verdicts by result")
    verdicts = IsolationVerdictSerializer(many=True)


class IsolationSerializer(serializers.Serializer[Any]):
    result = serializers.ChoiceField(choices=_RESULTS, help_text="The worst of all pods")
    is_blocked = serializers.BooleanField(help_text="Whether a rule of the environment that enforces is not met")
    pods = JudgedPodSerializer(many=True)
    others = serializers.IntegerField(help_text="Number of objects without a pod, which were not checked")


class IsolationCheckView(APIView):
    """How well pods are isolated."""

    @extend_schema(operation_id="isolation_check", request=IsolationBody, responses=IsolationSerializer)
    def post(self, request: Request) -> Response:
        """Check the pods of manifests against the isolation checks of a profile. Nothing is stored."""
        user = caller(request)
        body = IsolationBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        if ("object" in values) == ("manifest" in values):
            raise Malformed("Send either object or manifest.")
        documents = [values.pop("object")] if "object" in values else documents_of(values.pop("manifest"))
        manifests = manifests_of(documents)
        judged = judge_manifests(user, manifests, **values)
        results = {pod.result for pod in judged}
        worst = next((one for one in (Result.FAIL, Result.UNKNOWN) if one in results), Result.PASS)
        answer = {
            "result": worst.value,
            "is_blocked": any(pod.is_blocked for pod in judged),
            "pods": [_as_json(pod) for pod in judged],
            "others": manifests.others,
        }
        return Response(IsolationSerializer(answer).data)


def _as_json(judged: JudgedPod) -> dict[str, Any]:
    return {
        "document": judged.pod.document,
        "kind": judged.pod.kind,
        "name": judged.pod.name,
        "namespace": judged.pod.context.namespace,
        "result": judged.result.value,
        "is_blocked": judged.is_blocked,
        "pod_security": dict(judged.keeps),
        "counts": counts(judged.verdicts),
        "verdicts": [
            verdict.as_json()
            | {
                "title": CHECKS[verdict.check].title,
                "profiles": [profile.value for profile in CHECKS[verdict.check].profiles],
                "cis_kubernetes": CHECKS[verdict.check].cis_kubernetes,
                "cis_docker": CHECKS[verdict.check].cis_docker,
            }
            for verdict in judged.verdicts
        ],
    }
