"""Sign-in in `/api/v1/sign-in/` (admins only): providers, their rules, previews, and who can use passwords."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from lifecycle.api.caller import caller
from lifecycle.api.preconditions import revision_wanted, with_etag
from lifecycle.api.serializing import StrictSerializer
from lifecycle.core.errors import Malformed, UpstreamError
from lifecycle.sso import services
from lifecycle.sso.models import ClaimRule, IdentityProvider
from lifecycle.sso.queries import callback_of, passwords_are_for_admins, provider_for, providers_for, rules_of
from lifecycle.sso.services import SECRET_MAX, NewRule

_IF_MATCH: Final = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="`ETag` of the provider that you read; optional."
)


def _parsed(body: serializers.Serializer[Any]) -> dict[str, Any]:
    body.is_valid(raise_exception=True)
    values: dict[str, Any] = body.validated_data
    return values


class SignInProviderSerializer(serializers.ModelSerializer[IdentityProvider]):
    """A provider. Its client secret is never shown."""

    callback = serializers.SerializerMethodField(help_text="Redirect address to enter at the provider")

    class Meta:
        model = IdentityProvider
        fields = (
            "slug", "name", "issuer", "client_id", "scopes", "username_claim", "is_enabled", "creates_accounts",
            "links_by_mail", "callback", "revision", "created_at",
        )  # fmt: skip
        read_only_fields = fields
        extra_kwargs = {
            "issuer": {"help_text": "Exactly as in the discovery document of the provider"},
            "client_id": {"help_text": "Our client there"},
            "scopes": {"help_text": "Scopes to ask for, separated by spaces"},
            "username_claim": {"help_text": "Claim from which new accounts get their user name"},
            "is_enabled": {"help_text": "Whether the sign-in page offers it"},
            "creates_accounts": {"help_text": "Whether the first sign-in creates an account"},
            "links_by_mail": {"help_text": "Whether a mail that the provider and an admin verified links an account"},
        }

    def get_callback(self, provider: IdentityProvider) -> str:
        return callback_of(provider.slug)


class SignInProviderBody(StrictSerializer):
    slug = serializers.CharField(max_length=60)
    name = serializers.CharField(max_length=120)
    issuer = serializers.CharField(max_length=300)
    client_id = serializers.CharField(max_length=300)
    client_secret = serializers.CharField(
        max_length=SECRET_MAX, trim_whitespace=False, help_text="Stored encrypted; never shown"
    )
    scopes = serializers.CharField(max_length=300, required=False, default="openid profile email")
    username_claim = serializers.CharField(max_length=60, required=False, default="preferred_username")
    is_enabled = serializers.BooleanField(required=False, default=True)
    creates_accounts = serializers.BooleanField(required=False, default=False)
    links_by_mail = serializers.BooleanField(required=False, default=False)


class SignInProviderChangeBody(StrictSerializer):
    """What to change; what is left out stays. Another `client_id` needs its secret."""

    name = serializers.CharField(max_length=120, required=False)
    client_id = serializers.CharField(max_length=300, required=False)
    client_secret = serializers.CharField(
        max_length=SECRET_MAX, required=False, trim_whitespace=False, help_text="Left out: it stays the same"
    )
    scopes = serializers.CharField(max_length=300, required=False)
    username_claim = serializers.CharField(max_length=60, required=False)
    is_enabled = serializers.BooleanField(required=False)
    creates_accounts = serializers.BooleanField(required=False)
    links_by_mail = serializers.BooleanField(required=False)


class ClaimRuleSerializer(serializers.ModelSerializer[ClaimRule]):
    """A rule: what a value of a claim gives."""

    group = serializers.CharField(
        source="group.__str__", read_only=True, default=None, allow_null=True, help_text="Group that it gives, or null"
    )
    role = serializers.CharField(
        source="role.slug", read_only=True, default=None, allow_null=True, help_text="Role that it gives, or null"
    )
    team = serializers.CharField(
        source="team.slug", read_only=True, default=None, allow_null=True, help_text="Team of the role, or null"
    )
    repositories = serializers.CharField(source="repository_pattern", read_only=True)
    environment = serializers.CharField(source="environment.slug", read_only=True, default=None, allow_null=True)

    class Meta:
        model = ClaimRule
        fields = ("id", "claim", "match", "value", "group", "role", "team", "repositories", "environment", "created_at")
        read_only_fields = fields
        extra_kwargs = {
            "claim": {"help_text": "Path of the claim, for example `groups` or `realm_access.roles`"},
            "match": {"help_text": "`exact`, or `glob`: a star matches any characters"},
            "value": {"help_text": "Value or pattern; case counts"},
        }


class ClaimRuleBody(StrictSerializer):
    claim = serializers.CharField(max_length=200)
    match = serializers.ChoiceField(choices=ClaimRule.Match.choices, required=False, default=ClaimRule.Match.EXACT)
    value = serializers.CharField(max_length=255)
    group = serializers.CharField(max_length=121, required=False, default="", help_text="A group from sign-in, or")
    role = serializers.CharField(max_length=60, required=False, default="", help_text="a role, with its team")
    team = serializers.CharField(max_length=60, required=False, default="")
    repositories = serializers.CharField(max_length=255, required=False, default="*")
    environment = serializers.CharField(max_length=60, required=False, default="", allow_blank=True)


class OutcomeSerializer(serializers.Serializer[Any]):
    """What one rule does with sample claims."""

    rule = ClaimRuleSerializer()
    applies = serializers.BooleanField(help_text="Whether the rule gives its group or role")
    values = serializers.ListField(child=serializers.CharField(), help_text="Values of the claim that match")
    problem = serializers.CharField(help_text="Why the sign-in would be refused; empty if it would not")


class OutcomesSerializer(serializers.Serializer[Any]):
    outcomes = OutcomeSerializer(many=True, help_text="One for each rule, in order")


class EffectSerializer(serializers.Serializer[Any]):
    """What a change of rules changes for one person, by the claims of their last sign-in."""

    username = serializers.CharField()
    gains = serializers.ListField(child=serializers.CharField(), help_text="Groups and roles that the person gets")
    loses = serializers.ListField(child=serializers.CharField(), help_text="Groups and roles that end")


class EffectsSerializer(serializers.Serializer[Any]):
    effects = EffectSerializer(
        many=True, help_text="One for each person, by user name; people without a change left out"
    )


class SampleBody(StrictSerializer):
    claims = serializers.DictField(help_text="Claims as an ID token or userinfo has them; nothing is stored")


class EffectsBody(StrictSerializer):
    add = ClaimRuleBody(required=False, default=None, allow_null=True, help_text="A new rule, or")
    remove = serializers.IntegerField(
        required=False, default=None, allow_null=True, help_text="the id of one to remove"
    )


class SignInTestSerializer(serializers.Serializer[Any]):
    """Whether a provider answers, with a discovery document that is right."""

    is_ok = serializers.BooleanField(help_text="Whether people can be sent there")
    detail = serializers.CharField()
    algorithms = serializers.ListField(child=serializers.CharField(), help_text="Of ID tokens, those that we take")


class SignInPolicySerializer(StrictSerializer):
    passwords_only_for_admins = serializers.BooleanField(help_text="Whether only admins can use a password")


def _rule_of(values: dict[str, Any]) -> NewRule:
    return NewRule(**{"repository_pattern" if name == "repositories" else name: text for name, text in values.items()})


class SignInProvidersView(generics.ListAPIView[IdentityProvider]):
    """The OpenID Connect providers of sign-in."""

    queryset = IdentityProvider.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = SignInProviderSerializer

    def get_queryset(self) -> QuerySet[IdentityProvider]:
        return providers_for(caller(self.request)).order_by("pk")

    @extend_schema(request=SignInProviderBody, responses={201: SignInProviderSerializer})
    def post(self, request: Request) -> Response:
        """Add a provider. Enter its `callback` there; then test it."""
        made = services.create_provider(actor=caller(request), **_parsed(SignInProviderBody(data=request.data)))
        return with_etag(Response(self.get_serializer(made).data, status=201), made.revision)


class SignInProviderView(generics.GenericAPIView[IdentityProvider]):
    """One provider."""

    serializer_class = SignInProviderSerializer

    def _answer(self, provider: IdentityProvider) -> Response:
        return with_etag(Response(self.get_serializer(provider).data), provider.revision)

    @extend_schema(responses=SignInProviderSerializer)
    def get(self, request: Request, slug: str) -> Response:
        """Return one provider. The `ETag` is its revision."""
        return self._answer(provider_for(caller(request), slug))

    @extend_schema(request=SignInProviderChangeBody, responses=SignInProviderSerializer, parameters=[_IF_MATCH])
    def patch(self, request: Request, slug: str) -> Response:
        """Change a provider. Its issuer never changes."""
        values = _parsed(SignInProviderChangeBody(data=request.data))
        actor = caller(request)
        return self._answer(services.change_provider(slug, actor=actor, revision=revision_wanted(request), **values))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, slug: str) -> Response:
        """Remove a provider with its rules, everything that its claims gave, and its identities. Accounts stay."""
        services.delete_provider(slug, actor=caller(request))
        return Response(status=204)


class SignInProviderTestView(generics.GenericAPIView[IdentityProvider]):
    """Whether a provider answers."""

    serializer_class = SignInTestSerializer
    calls_others: ClassVar[frozenset[str]] = frozenset({"post"})  # the provider

    @extend_schema(request=None, responses=SignInTestSerializer)
    def post(self, request: Request, slug: str) -> Response:
        """Read the discovery document of the provider now. Changes nothing."""
        try:
            found = services.test_provider(slug, actor=caller(request))
        except (UpstreamError, Malformed) as error:
            return Response({"is_ok": False, "detail": error.message, "algorithms": []})
        detail = "The provider answers, and its discovery document is right."
        return Response({"is_ok": True, "detail": detail, "algorithms": list(found.algorithms)})


class SignInRulesView(generics.ListAPIView[ClaimRule]):
    """The rules of a provider, from claims to groups and roles."""

    queryset = ClaimRule.objects.none()  # as above
    serializer_class = ClaimRuleSerializer

    def get_queryset(self) -> QuerySet[ClaimRule]:
        return rules_of(provider_for(caller(self.request), self.kwargs["slug"]))

    @extend_schema(request=ClaimRuleBody, responses={201: ClaimRuleSerializer})
    def post(self, request: Request, slug: str) -> Response:
        """Add a rule. It counts from the next sign-in of each person."""
        rule = services.create_rule(slug, _rule_of(_parsed(ClaimRuleBody(data=request.data))), actor=caller(request))
        return Response(self.get_serializer(rule).data, status=201)


class SignInRuleView(generics.GenericAPIView[ClaimRule]):
    """One rule."""

    serializer_class = ClaimRuleSerializer

    @extend_schema(responses={204: None})
    def delete(self, request: Request, slug: str, rule_id: int) -> Response:
        """Remove a rule. What only this rule gave ends at once."""
        services.delete_rule(slug, rule_id, actor=caller(request))
        return Response(status=204)


class SignInPreviewView(generics.GenericAPIView[ClaimRule]):
    """What the rules do with sample claims."""

    serializer_class = OutcomesSerializer

    @extend_schema(request=SampleBody, responses=OutcomesSerializer)
    def post(self, request: Request, slug: str) -> Response:
        """Return what each rule does with these claims. Changes and stores nothing."""
        outcomes = services.preview(slug, _parsed(SampleBody(data=request.data))["claims"], actor=caller(request))
        return Response(OutcomesSerializer({"outcomes": outcomes}).data)


class SignInEffectsView(generics.GenericAPIView[ClaimRule]):
    """Who would gain and lose what."""

    serializer_class = EffectsSerializer

    @extend_schema(request=EffectsBody, responses=EffectsSerializer)
    def post(self, request: Request, slug: str) -> Response:
        """Return who would gain and lose what by a new rule, or without one, by the claims of last sign-ins."""
        values = _parsed(EffectsBody(data=request.data))
        add = _rule_of(values["add"]) if values["add"] else None
        effects = services.effects_of(slug, actor=caller(request), add=add, remove=values["remove"])
        return Response(EffectsSerializer({"effects": effects}).data)


class SignInPolicyView(generics.GenericAPIView[IdentityProvider]):
    """Who can sign in with a password."""

    serializer_class = SignInPolicySerializer

    @extend_schema(responses=SignInPolicySerializer)
    def get(self, request: Request) -> Response:
        """Return whether only admins can sign in with a password."""
        providers_for(caller(request))
        return Response({"passwords_only_for_admins": passwords_are_for_admins()})

    @extend_schema(request=SignInPolicySerializer, responses=SignInPolicySerializer)
    def put(self, request: Request) -> Response:
        """Decide whether only admins can sign in with a password."""
        policy = services.set_policy(actor=caller(request), **_parsed(SignInPolicySerializer(data=request.data)))
        return Response({"passwords_only_for_admins": policy.passwords_only_for_admins})
