"""What sign-ins and approvals need in `/api/v1/security/`: second factors, and fresh ones in production."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.api.etags import IF_MATCH, require_match
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority import services
from lifecycle.authority.access import people_for
from lifecycle.authority.models import SecuritySettings
from lifecycle.authority.services.security import roles_with_factor

_FOR_ADMINS = "Whether admins must set up a second factor before anything else"
_FOR_ROLES = "Short names of roles whose holders must set up a second factor before anything else"
_STEP_UP = "Whether approvals into production environments need a second factor within 15 minutes; then not by token"


class SecuritySerializer(serializers.Serializer[Any]):
    """The settings. Revision 0: nothing was changed yet."""

    second_factor_for_admins = serializers.BooleanField(help_text=_FOR_ADMINS)
    second_factor_for_roles = serializers.ListField(child=serializers.CharField(), help_text=_FOR_ROLES)
    step_up_is_on = serializers.BooleanField(help_text=_STEP_UP)
    revision = serializers.IntegerField()


class SecurityBody(StrictSerializer):
    second_factor_for_admins = serializers.BooleanField(help_text=_FOR_ADMINS)
    second_factor_for_roles = serializers.ListField(
        child=serializers.CharField(max_length=60), max_length=200, help_text=_FOR_ROLES
    )
    step_up_is_on = serializers.BooleanField(help_text=_STEP_UP)


class SecurityView(APIView):
    """What sign-ins and approvals need."""

    @extend_schema(operation_id="security_retrieve", responses=SecuritySerializer)
    def get(self, request: Request) -> Response:
        """Return the settings (admins only), with their ETag."""
        people_for(caller(request))
        return _answer(services.security_now())

    @extend_schema(
        operation_id="security_update", parameters=[IF_MATCH], request=SecurityBody, responses=SecuritySerializer
    )
    def put(self, request: Request) -> Response:
        """Save the settings (admins only). Needs If-Match: 428 without it, 412 when somebody saved meanwhile."""
        user = caller(request)
        people_for(user)
        current = services.security_now()
        require_match(request, _etag(current))
        body = SecurityBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        return _answer(services.change_security(actor=user, revision=current.revision, **values))


def _etag(row: SecuritySettings) -> str:
    return f'"security.{row.revision}"'


def _answer(row: SecuritySettings) -> Response:
    document = {
        "second_factor_for_admins": row.second_factor_for_admins,
        "second_factor_for_roles": roles_with_factor(),
        "step_up_is_on": row.step_up_is_on,
        "revision": row.revision,
    }
    return Response(SecuritySerializer(document).data, headers={"ETag": _etag(row)})
