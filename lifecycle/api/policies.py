"""Policies in `/api/v1/`: rule sets with their revisions, drafts and tests, and the verdict about an image."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.api.etags import IF_MATCH, require_match
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority.access import environment_for, image_for, image_in, repository_named
from lifecycle.authority.queries import repositories_visible_to
from lifecycle.core import clock
from lifecycle.core.errors import NotFound
from lifecycle.core.reasons import refuse_if
from lifecycle.environments.models import Environment
from lifecycle.evidence.at_ingest import verdict_at_ingest
from lifecycle.evidence.policy_facts import facts_of_images
from lifecycle.evidence.verdicts import judge
from lifecycle.policies import cel, services
from lifecycle.policies.access import scope_for, why_not_manage
from lifecycle.policies.models import PolicyRevision
from lifecycle.policies.queries import newest, revisions_visible_to, rule_set_of
from lifecycle.policies.types import RuleSet
from lifecycle.policy.cases import cases_of, run_case
from lifecycle.policy.catalogue import KINDS
from lifecycle.policy.expressions import NAMES, completions, names_of, values_of
from lifecycle.policy.parameters import TEXT_MAX
from lifecycle.policy.rulesets import MODES, Point, rules_of
from lifecycle.promotion.gates import BEFORE
from lifecycle.promotion.what_if import as_json, what_if
from lifecycle.registry.models import Image, Repository

_SCOPE: Final = "`site`, `team:shop` or `team:shop:production`"
_IMAGE: Final = (
    OpenApiParameter("repository", str, description="Source repository of the image, if it is in several."),
    OpenApiParameter("environment", str, description="Slug of an environment of the repository's team."),
)


class RevisionSerializer(serializers.ModelSerializer[PolicyRevision]):
    """One revision of a rule set."""

    scope = serializers.CharField(source="policy", help_text="site, team:shop, or team:shop:production", read_only=True)
    revision = serializers.IntegerField(source="number", read_only=True)
    author = serializers.CharField(source="author.username", read_only=True)

    class Meta:
        model = PolicyRevision
        fields = ("id", "scope", "revision", "digest", "author", "note", "at", "rules", "cases")
        read_only_fields = fields


class RuleSetSerializer(serializers.Serializer[Any]):
    """The rules of a scope now. Revision 0 has no rules: nobody saved any yet."""

    scope = serializers.CharField(help_text=_SCOPE)
    revision = serializers.IntegerField()
    digest = serializers.CharField()
    rules = serializers.ListField(child=serializers.JSONField())
    cases = serializers.ListField(child=serializers.JSONField())


class RuleSetBody(StrictSerializer):
    rules = serializers.ListField(child=serializers.JSONField(), help_text="As a policy file has them")
    cases = serializers.ListField(child=serializers.JSONField(), required=False, default=list)
    note = serializers.CharField(max_length=services.NOTE_MAX, required=False, default="", allow_blank=True)


class DraftBody(StrictSerializer):
    scope = serializers.CharField(max_length=200, help_text=_SCOPE)
    rules = serializers.ListField(child=serializers.JSONField())


class CasesBody(StrictSerializer):
    rules = serializers.ListField(child=serializers.JSONField())
    cases = serializers.ListField(child=serializers.JSONField())


class TryBody(StrictSerializer):
    expression = serializers.CharField(max_length=TEXT_MAX)
    digest = serializers.CharField(max_length=135)
    repository = serializers.CharField(max_length=255, required=False, default="")
    environment = serializers.CharField(max_length=60, required=False, default="", allow_blank=True)


def _parsed(body: serializers.Serializer[Any]) -> dict[str, Any]:
    body.is_valid(raise_exception=True)
    values: dict[str, Any] = body.validated_data
    return values


def _document(rule_set: RuleSet) -> dict[str, Any]:
    return {
        "scope": rule_set.scope.name,
        "revision": rule_set.number,
        "digest": rule_set.digest,
        "rules": [rule.as_json() for rule in rule_set.rules],
        "cases": list(rule_set.cases),
    }


class PoliciesView(generics.ListAPIView[PolicyRevision]):
    """The newest revision of each rule set that you can see."""

    queryset = PolicyRevision.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = RevisionSerializer

    def get_queryset(self) -> QuerySet[PolicyRevision]:
        return newest(revisions_visible_to(caller(self.request))).order_by("pk")


class CatalogueView(APIView):
    """All kinds of rules, points and modes."""

    @extend_schema(responses={200: dict})
    def get(self, request: Request) -> Response:
        """Return the kinds of rules with their parameters, also those that wait for facts, and names for CEL."""
        kinds = [
            {
                "kind": kind.name,
                "title": kind.title,
                "help": kind.help,
                "waits_for": kind.waits_for,
                "parameters": [
                    {
                        "name": parameter.name,
                        "type": parameter.type.value,
                        "title": parameter.title,
                        "help": parameter.help,
                        "default": parameter.default,
                        "required": parameter.is_required,
                        "stricter": parameter.stricter.value,
                    }
                    for parameter in kind.parameters
                ],
            }
            for kind in KINDS.values()
        ]
        return Response(
            {
                "kinds": kinds,
                "points": [point.value for point in Point],
                "modes": [mode.value for mode in MODES],
                "names": NAMES,
                "completions": completions(),
            }
        )


class PolicyView(APIView):
    """The rules of one scope."""

    @extend_schema(responses=RuleSetSerializer)
    def get(self, request: Request, scope: str) -> Response:
        """Return the rules of a scope, with their ETag. A scope without a revision has revision 0 and no rules."""
        rule_set = rule_set_of(scope_for(caller(request), scope))
        return Response(_document(rule_set), headers={"ETag": rule_set.etag})

    @extend_schema(parameters=[IF_MATCH], request=RuleSetBody, responses=RuleSetSerializer)
    def put(self, request: Request, scope: str) -> Response:
        """Save the next revision (policy.manage; admins for the site). New rules start in observe.

        Needs If-Match with the ETag of the rules that you changed: 428 without it, 412 when somebody saved meanwhile.
        """
        place = scope_for(caller(request), scope)
        refuse_if(why_not_manage(caller(request), place))
        current = rule_set_of(place)
        require_match(request, current.etag)
        values = _parsed(RuleSetBody(data=request.data))
        services.save_policy(place, values["rules"], actor=caller(request), seen=current.number, note=values["note"],
                             cases=values["cases"])  # fmt: skip
        saved = rule_set_of(place)
        return Response(_document(saved), headers={"ETag": saved.etag})


class PolicyRevisionsView(generics.ListAPIView[PolicyRevision]):
    """The revisions of one rule set, newest first."""

    queryset = PolicyRevision.objects.none()  # as above
    serializer_class = RevisionSerializer

    def get_queryset(self) -> QuerySet[PolicyRevision]:
        scope = scope_for(caller(self.request), self.kwargs["scope"])
        rows = revisions_visible_to(caller(self.request)).filter(policy__environment=scope.environment)
        return rows.filter(policy__team=None if scope.environment else scope.team).order_by("-pk")


class WhatIfView(APIView):
    """What a draft would change."""

    @extend_schema(request=DraftBody, responses={200: dict})
    def post(self, request: Request) -> Response:
        """Judge all that environments hold now, and the requests of 90 days, by a draft (policy.manage). Saves nothing.

        Rules in observe or warn count as if they were enforced. Needs the right to save the draft.
        """
        values = _parsed(DraftBody(data=request.data))
        scope = scope_for(caller(request), values["scope"])
        refuse_if(why_not_manage(caller(request), scope))
        return Response(as_json(what_if(services.draft_of(scope, values["rules"]), reader=caller(request))))


class CasesView(APIView):
    """Test cases of a rule set."""

    @extend_schema(request=CasesBody, responses={200: dict})
    def post(self, request: Request) -> Response:
        """Run the test cases of a policy file over its rules. Saves nothing and reads no image."""
        values = _parsed(CasesBody(data=request.data))
        rules, now = rules_of(values["rules"], origin="the file"), clock.now()
        results = [run_case(case, rules, now, evaluate=cel.evaluate) for case in cases_of(values["cases"])]
        return Response(
            {
                "passed": not any(result.problems for result in results),
                "results": [{"name": result.name, "problems": list(result.problems)} for result in results],
            }
        )


class TryView(APIView):
    """Try a CEL expression."""

    @extend_schema(request=TryBody, responses={200: dict})
    def post(self, request: Request) -> Response:
        """Evaluate an expression over the facts of an image that you can see. Saves nothing."""
        values = _parsed(TryBody(data=request.data))
        image, repository, environment = place_of(
            request, values["digest"], values["repository"], values["environment"]
        )
        text = values["expression"]
        (facts,) = facts_of_images([(image, repository, environment)], names_of(text))
        named = values_of(facts, [text])
        (answer,) = cel.evaluate([text], named)
        return Response({"value": answer.value, "problem": answer.problem, "facts": named})


def place_of(request: Request, digest: str, name: str, slug: str) -> tuple[Image, Repository, Environment | None]:
    """Return an image with its source repository and an environment of its team, all visible; raises NotFound.

    Without a name, the first visible source repository with the image counts.
    """
    user = caller(request)
    image = image_for(user, digest)
    if name:
        repository = repository_named(user, name)
        repository = repository.source or repository
        image_in(repository, image.digest)
    else:
        rows = repositories_visible_to(user).select_related("team", "source__team")
        rows = rows.filter(repository_images__image=image, repository_images__removed_at=None)
        first = rows.order_by("environment_id", "name").first()
        if first is None:
            raise NotFound("Image not found, or you don't have access.")
        repository = first.source or first
    environment = environment_for(user, team=repository.team.slug, slug=slug) if slug else None
    return image, repository, environment


def _at_ingest(image: Image, repository: Repository, *, sees_all: bool) -> dict[str, Any] | None:
    """Return what was stored when the image was pushed; None when nothing was judged then."""
    row = verdict_at_ingest(image, repository)
    if row is None:
        return None
    return {
        "state": "waiting" if row.judged_at is None else "judged",
        "judged_at": row.judged_at,
        "allowed": row.is_allowed,
        "revisions": [{"scope": name, "revision": number, "digest": digest} for name, number, digest in row.revisions],
        "rules": row.rules if sees_all else row.shown,
    }


class VerdictView(APIView):
    """What the policies say about an image."""

    @extend_schema(
        parameters=[
            *_IMAGE,
            OpenApiParameter(
                "point", str, enum=[point.value for point in Point],
                description="Without it: request and execution for an environment, else ingest.",
            ),
        ],
        responses={200: dict},
    )  # fmt: skip
    def get(self, request: Request, digest: str) -> Response:
        """Return whether the rules let the image pass now, and what each of them says.

        For the point `ingest`, `at_ingest` has what they said when the image was pushed.
        """
        query = request.query_params
        image, repository, environment = place_of(
            request, digest, query.get("repository", ""), query.get("environment", "")
        )
        points = BEFORE if environment else (Point.INGEST,)
        if given := query.get("point"):
            if given not in set(Point):
                raise serializers.ValidationError({"point": [f"Choose one of {', '.join(Point)}."]})
            points = (Point(given),)
        verdict = judge(image, repository, environment, points)
        scope = repository.team
        sees_all = why_not_manage(caller(request), scope_for(caller(request), f"team:{scope.slug}")) is None
        return Response(
            {
                "digest": image.digest,
                "repository": repository.name,
                "environment": environment.slug if environment else None,
                "points": [point.value for point in points],
                "allowed": verdict.is_allowed,
                "reasons": [f"{item.rule.words}: {item.outcome.summary}" for item in verdict.judged if item.blocks],
                "revisions": [
                    {"scope": name, "revision": number, "digest": digest}
                    for name, number, digest in verdict.effective.revisions
                ],
                "rules": [item.as_json() for item in (verdict.judged if sees_all else verdict.shown)],
                "at_ingest": _at_ingest(image, repository, sees_all=sees_all) if points == (Point.INGEST,) else None,
            }
        )
