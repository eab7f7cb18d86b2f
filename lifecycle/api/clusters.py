"""Clusters in `/api/v1/`: their settings, the bindings of their namespaces, and new secrets."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.verbs import Verb
from lifecycle.admission.ending import delete_cluster, what_ends_with, why_not_delete
from lifecycle.api.caller import caller
from lifecycle.api.etags import IF_MATCH
from lifecycle.api.flat import FlatListMixin
from lifecycle.api.preconditions import revision_required, revision_wanted, with_etag
from lifecycle.api.secrets import SecretResponse
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import team_for
from lifecycle.clusters import services
from lifecycle.clusters.access import cluster_for, why_not_manage
from lifecycle.clusters.constants import BINDINGS_MAX, HOSTS_MAX, STALE_MAX_S, STALE_MIN_S, SUBJECT_MAX, SUBJECTS_MAX
from lifecycle.clusters.models import Cluster, ClusterSecret, Mode, NamespaceBinding
from lifecycle.clusters.queries import bindings_of, clusters_visible_to
from lifecycle.clusters.types import BindingWish
from lifecycle.core.errors import Malformed
from lifecycle.core.reasons import refuse_if

_OPTIONAL_IF_MATCH: Final = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="`ETag` of the cluster that you read; optional."
)
_KIND_HELP: Final = "`kubernetes`, `docker`, `ecs` or `generic`"
_MODE_HELP: Final = "`off`, `observe` (record), `warn` or `enforce` (refuse)"
_TAGS_HELP: Final = "`resolve`: a tag is judged as the digest it names now; or `require_digest`"
_UNBOUND_HELP: Final = "What counts in a namespace without a binding: `observe` or `deny`"
_SUBJECTS_HELP: Final = "Who may break glass: `user:NAME` or `group:NAME`, as the API server names them"
_MUTATE_HELP: Final = "Whether a webhook names images of new Pods by digest (`/mutate`)"
_STALE_HELP: Final = "Seconds after which a snapshot is too old: enforce then refuses"


class ClusterSerializer(serializers.ModelSerializer[Cluster]):
    """A place where containers run."""

    team = serializers.CharField(source="team.slug", read_only=True)
    kind = serializers.CharField(read_only=True, help_text=_KIND_HELP)
    mode = serializers.CharField(read_only=True, help_text=_MODE_HELP)
    tags = serializers.CharField(read_only=True, help_text=_TAGS_HELP)
    unbound = serializers.CharField(read_only=True, help_text=_UNBOUND_HELP)
    breakglass_subjects = serializers.ListField(child=serializers.CharField(), read_only=True, help_text=_SUBJECTS_HELP)
    stale_after_s = serializers.IntegerField(read_only=True, help_text=_STALE_HELP)
    mutate = serializers.BooleanField(read_only=True, help_text=_MUTATE_HELP)
    created_by = serializers.CharField(source="created_by.username", read_only=True)

    class Meta:
        model = Cluster
        fields = (
            "slug", "team", "kind", "mode", "tags", "unbound", "breakglass_subjects", "stale_after_s", "mutate",
            "revision", "created_by", "created_at",
        )  # fmt: skip
        read_only_fields = fields


class ClusterChangeBody(StrictSerializer):
    """The settings to change; what is left out stays."""

    mode = serializers.ChoiceField(choices=Mode.values, required=False, help_text=_MODE_HELP)
    tags = serializers.ChoiceField(choices=Cluster.Tags.values, required=False, help_text=_TAGS_HELP)
    unbound = serializers.ChoiceField(choices=Cluster.Unbound.values, required=False, help_text=_UNBOUND_HELP)
    breakglass_subjects = serializers.ListField(
        child=serializers.CharField(max_length=SUBJECT_MAX), max_length=SUBJECTS_MAX, required=False,
        help_text=_SUBJECTS_HELP,
    )  # fmt: skip
    stale_after_s = serializers.IntegerField(
        min_value=STALE_MIN_S, max_value=STALE_MAX_S, required=False, help_text=_STALE_HELP
    )
    mutate = serializers.BooleanField(required=False, help_text=_MUTATE_HELP)


class ClusterBody(ClusterChangeBody):
    slug = serializers.CharField(max_length=60)
    team = serializers.CharField(max_length=60, help_text="Slug of the team that runs it")
    kind = serializers.ChoiceField(choices=Cluster.Kind.values, required=False, help_text=_KIND_HELP)


class BindingSerializer(serializers.Serializer[NamespaceBinding]):
    """The environment whose images may run in the namespaces that a pattern matches."""

    pattern = serializers.CharField(
        help_text="Name of a namespace; `*` stands for any characters, the most exact counts"
    )
    environment = serializers.SerializerMethodField(help_text="`TEAM/ENVIRONMENT`")
    mode = serializers.SerializerMethodField(help_text="Mode here; null: that of the cluster")
    allowed_hosts = serializers.ListField(
        child=serializers.CharField(), help_text="Registries that are not ours, from which images may come"
    )

    def get_environment(self, row: NamespaceBinding) -> str:
        return f"{row.environment.team.slug}/{row.environment.slug}"

    def get_mode(self, row: NamespaceBinding) -> str | None:
        return row.mode or None


class BindingsSerializer(serializers.Serializer[Any]):
    bindings = BindingSerializer(many=True, help_text="The most exact pattern first")


class BindingBody(StrictSerializer):
    pattern = serializers.CharField(max_length=253, help_text="Name of a namespace; `*` stands for any characters")
    environment = serializers.CharField(max_length=121, help_text="Slug in the cluster's team, or `TEAM/ENVIRONMENT`")
    mode = serializers.ChoiceField(
        choices=Mode.values, required=False, allow_null=True, allow_blank=True, default="", help_text=_MODE_HELP
    )
    allowed_hosts = serializers.ListField(
        child=serializers.CharField(max_length=260), max_length=HOSTS_MAX, required=False, default=list,
        help_text="`host` or `host:port` of registries that are not ours",
    )  # fmt: skip


class BindingsBody(StrictSerializer):
    bindings = BindingBody(many=True, max_length=BINDINGS_MAX)  # type: ignore[call-arg]  # DRF takes it with many

    def wishes(self) -> list[BindingWish]:
        """Return the bindings of a valid body."""
        return [
            BindingWish(row["pattern"], row["environment"], row["mode"] or "", tuple(row["allowed_hosts"]))
            for row in self.validated_data["bindings"]
        ]


class ClusterSecretBody(StrictSerializer):
    kind = serializers.ChoiceField(choices=ClusterSecret.Kind.values, help_text="`admission` or `alerts`")


class ClusterSecretSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(help_text="`admission` or `alerts`")
    secret = serializers.CharField(help_text="Only this response contains it")
    created_at = serializers.DateTimeField()
    previous_valid_until = serializers.DateTimeField(
        allow_null=True, help_text="Until when the secret before it is valid; null if there was none"
    )


class ClusterContentsSerializer(serializers.Serializer[Any]):
    bindings = serializers.IntegerField(help_text="Bound patterns of namespaces")
    secrets = serializers.IntegerField(help_text="Also those that are not valid any more")
    running_images = serializers.IntegerField(help_text="Images of workloads that run now; they end")
    running_containers = serializers.IntegerField(help_text="Containers that run now; they end")
    past_images = serializers.IntegerField(help_text="What ran before; it goes after 90 days")
    alerts = serializers.IntegerField(help_text="Live ones; they close")
    decisions = serializers.IntegerField(help_text="Recorded refusals and break-glass; they go after 90 days")
    why_not_delete = serializers.CharField(help_text="Empty, or why it cannot be deleted now")


class ClusterViewSet(FlatListMixin, viewsets.GenericViewSet[Cluster]):
    """The clusters of the teams you can see."""

    queryset = Cluster.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = ClusterSerializer
    lookup_field = "slug"
    lookup_value_regex = "[a-z0-9-]{1,60}"

    def get_queryset(self) -> QuerySet[Cluster]:
        return clusters_visible_to(caller(self.request)).order_by("pk")

    @extend_schema(responses=ClusterSerializer)
    def retrieve(self, request: Request, slug: str) -> Response:
        """Return one cluster. The `ETag` is its revision."""
        return self._answer(cluster_for(caller(request), slug))

    @extend_schema(request=ClusterBody, responses={201: ClusterSerializer})
    def create(self, request: Request) -> Response:
        """Add a cluster to a team (environment.manage)."""
        body = ClusterBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        user = caller(request)
        cluster = services.create_cluster(team_for(user, values.pop("team")), values.pop("slug"), actor=user, **values)
        return self._answer(cluster, status=201)

    @extend_schema(request=ClusterChangeBody, responses=ClusterSerializer, parameters=[IF_MATCH])
    def partial_update(self, request: Request, slug: str) -> Response:
        """Change settings of a cluster (environment.manage)."""
        user = caller(request)
        refuse_if(why_not_manage(user, cluster_for(user, slug).team))
        body = ClusterChangeBody(data=request.data)
        body.is_valid(raise_exception=True)
        revision = revision_required(request)
        return self._answer(services.change_cluster(slug, actor=user, revision=revision, **body.validated_data))

    @extend_schema(
        responses={204: None},
        parameters=[OpenApiParameter("revision", int, description="Only if this is still the cluster's revision")],
    )
    def destroy(self, request: Request, slug: str) -> Response:
        """Delete a cluster that does not enforce (environment.manage). What ran there stays known for 90 days."""
        user, revision = caller(request), request.query_params.get("revision", "")
        cluster_for(user, slug)
        if revision and not (revision.isascii() and revision.isdigit() and len(revision) < 10):
            raise Malformed("revision: enter a whole number.", field="revision")
        delete_cluster(slug, actor=user, revision=int(revision) if revision else None)
        return Response(status=204)

    @extend_schema(operation_id="cluster_contents", responses=ClusterContentsSerializer)
    @action(detail=True)
    def contents(self, request: Request, slug: str) -> Response:
        """Say what ends with a cluster, and why it cannot be deleted now (environment.manage)."""
        user = caller(request)
        cluster = cluster_for(user, slug, verb=Verb.ENVIRONMENT_MANAGE)
        reason = why_not_delete(user, cluster)
        shown = what_ends_with(cluster) | {"why_not_delete": str(reason or "")}
        return Response(ClusterContentsSerializer(shown).data)

    @extend_schema(methods=["get"], responses=BindingsSerializer)
    @extend_schema(
        methods=["put"], request=BindingsBody, responses=BindingsSerializer, parameters=[_OPTIONAL_IF_MATCH]
    )  # fmt: skip
    @action(detail=True, methods=["get", "put"])
    def bindings(self, request: Request, slug: str) -> Response:
        """Read the bindings of a cluster, or replace all of them (environment.manage)."""
        user = caller(request)
        cluster = cluster_for(user, slug)
        if request.method == "PUT":
            refuse_if(why_not_manage(user, cluster.team))
            body = BindingsBody(data=request.data)
            body.is_valid(raise_exception=True)
            cluster = services.set_bindings(slug, body.wishes(), actor=user, revision=revision_wanted(request))
        answer = Response(BindingsSerializer({"bindings": bindings_of(cluster)}).data)
        return with_etag(answer, cluster.revision)

    @extend_schema(request=ClusterSecretBody, responses={201: ClusterSecretSerializer})
    @action(detail=True, methods=["post"])
    def secrets(self, request: Request, slug: str) -> Response:
        """Make a new secret (environment.manage). It is shown once; the previous one is valid for 24 hours more."""
        user = caller(request)
        refuse_if(why_not_manage(user, cluster_for(user, slug).team))
        body = ClusterSecretBody(data=request.data)
        body.is_valid(raise_exception=True)
        row, secret = services.create_secret(slug, body.validated_data["kind"], actor=user)
        previous = row.cluster.secrets.filter(kind=row.kind).exclude(valid_until=None).order_by("-valid_until").first()
        shown = {
            "kind": row.kind,
            "secret": secret,
            "created_at": row.created_at,
            "previous_valid_until": previous.valid_until if previous else None,
        }
        return SecretResponse(ClusterSecretSerializer(shown).data, secrets=("secret",), status=201)

    def _answer(self, cluster: Cluster, *, status: int = 200) -> Response:
        return with_etag(Response(ClusterSerializer(cluster).data, status=status), cluster.revision)
