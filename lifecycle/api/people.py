"""Accounts of people in `/api/v1/`: list, create, reset, deactivate and reactivate them, and who is an admin."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import User
from lifecycle.api.caller import caller
from lifecycle.api.secrets import SecretResponse
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority import services
from lifecycle.authority.access import people_for, person_for


class PersonSerializer(serializers.ModelSerializer[User]):
    is_admin = serializers.BooleanField(source="is_superuser", read_only=True)
    created_at = serializers.DateTimeField(source="date_joined", read_only=True)
    last_sign_in_at = serializers.DateTimeField(
        source="last_login", read_only=True, help_text="Last sign-in in the browser; null: never"
    )

    class Meta:
        model = User
        fields: tuple[str, ...] = (
            "id",
            "username",
            "full_name",
            "email",
            "email_verified_at",
            "is_active",
            "is_admin",
            "must_change_password",
            "created_at",
            "last_sign_in_at",
        )
        read_only_fields = fields


class PersonWithSecretSerializer(PersonSerializer):
    """A person and a new secret, which only this response contains."""

    secret = serializers.CharField(help_text="A link to set the password, or a password that must be changed first.")

    class Meta(PersonSerializer.Meta):
        fields = (*PersonSerializer.Meta.fields, "secret")
        read_only_fields = fields


class SecretBody(StrictSerializer):
    with_password = serializers.BooleanField(
        default=False, help_text="Generate a password that must be changed first, instead of a link."
    )


class PersonBody(SecretBody):
    username = serializers.CharField(max_length=60)
    full_name = serializers.CharField(max_length=120, default="", allow_blank=True)
    email = serializers.CharField(max_length=254, default="", allow_blank=True)
    is_admin = serializers.BooleanField(default=False)


def _parsed(body: serializers.Serializer[Any]) -> dict[str, Any]:
    body.is_valid(raise_exception=True)
    values: dict[str, Any] = body.validated_data
    return values


def _with_secret(person: User, secret: str, *, status: int = 200) -> Response:
    return SecretResponse({**PersonSerializer(person).data, "secret": secret}, secrets=("secret",), status=status)


class PeopleView(generics.ListAPIView[User]):
    """The accounts of people."""

    queryset = User.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = PersonSerializer

    def get_queryset(self) -> QuerySet[User]:
        text = self.request.query_params.get("q", "").strip()
        rows = people_for(caller(self.request))
        return (rows.filter(username__icontains=text) if text else rows).order_by("pk")

    @extend_schema(parameters=[OpenApiParameter("q", str, description="Only user names that contain this text.")])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the accounts of people (admins only)."""
        return super().get(request, *args, **kwargs)

    @extend_schema(request=PersonBody, responses={201: PersonWithSecretSerializer})
    def post(self, request: Request) -> Response:
        """Create an account (admins only). Send `secret` to that person: only this response contains it."""
        person, secret = services.create_person(actor=caller(request), **_parsed(PersonBody(data=request.data)))
        return _with_secret(person, secret, status=201)


class PersonView(generics.GenericAPIView[User]):
    """One person."""

    serializer_class = PersonSerializer

    @extend_schema(responses=PersonSerializer)
    def get(self, request: Request, person_id: int) -> Response:
        """Return yourself, a member of a team that you can see, or as an admin any person."""
        return Response(PersonSerializer(person_for(caller(request), person_id)).data)


class PersonPasswordView(generics.GenericAPIView[User]):
    """The password of a person."""

    serializer_class = PersonWithSecretSerializer

    @extend_schema(request=SecretBody, responses=PersonWithSecretSerializer)
    def post(self, request: Request, person_id: int) -> Response:
        """Reset the password (admins only). All sessions end, and the old password stops working."""
        values = _parsed(SecretBody(data=request.data))
        return _with_secret(*services.reset_password(person_id, actor=caller(request), **values))


class PersonDeactivateView(generics.GenericAPIView[User]):
    """End an account."""

    serializer_class = PersonSerializer

    @extend_schema(request=None, responses=PersonSerializer)
    def post(self, request: Request, person_id: int) -> Response:
        """Deactivate an account (admins only). Its sessions end, and its tokens are revoked."""
        return Response(PersonSerializer(services.deactivate(person_id, actor=caller(request))).data)


class PersonReactivateView(generics.GenericAPIView[User]):
    """Start a deactivated account again."""

    serializer_class = PersonWithSecretSerializer

    @extend_schema(request=SecretBody, responses=PersonWithSecretSerializer)
    def post(self, request: Request, person_id: int) -> Response:
        """Reactivate an account (admins only). Its unexpired grants work again; it gets a new secret."""
        values = _parsed(SecretBody(data=request.data))
        return _with_secret(*services.reactivate(person_id, actor=caller(request), **values))


class PersonMailView(generics.GenericAPIView[User]):
    """The mail of a person."""

    serializer_class = PersonSerializer

    @extend_schema(request=None, responses=PersonSerializer)
    def post(self, request: Request, person_id: int) -> Response:
        """Confirm that the mail belongs to the person (admins only). One confirmed mail stands for one person."""
        return Response(PersonSerializer(services.verify_mail(person_id, actor=caller(request))).data)


class PersonSessionsView(generics.GenericAPIView[User]):
    """The browser sessions of a person."""

    serializer_class = PersonSerializer

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, person_id: int) -> Response:
        """End every browser session of a person (admins only). Tokens stay."""
        services.end_sessions_of(person_id, actor=caller(request))
        return Response(status=204)


class PersonFactorsView(generics.GenericAPIView[User]):
    """The second factors of a person."""

    serializer_class = PersonSerializer

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, person_id: int) -> Response:
        """Remove every second factor of a person who lost them (admins only). All their sessions end."""
        services.reset_factors(person_id, actor=caller(request))
        return Response(status=204)


class PersonAdminView(generics.GenericAPIView[User]):
    """Whether a person is an admin."""

    serializer_class = PersonSerializer

    @extend_schema(request=None, responses=PersonSerializer)
    def put(self, request: Request, person_id: int) -> Response:
        """Make a person an admin (admins only)."""
        person = services.set_admin(person_id, actor=caller(request), is_admin=True)
        return Response(PersonSerializer(person).data)

    @extend_schema(request=None, responses=PersonSerializer)
    def delete(self, request: Request, person_id: int) -> Response:
        """Make an admin an ordinary user (admins only). The last admin stays."""
        person = services.set_admin(person_id, actor=caller(request), is_admin=False)
        return Response(PersonSerializer(person).data)
