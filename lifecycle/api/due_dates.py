"""The table of due dates in `/api/v1/due-dates/`, and what another table would make overdue."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from lifecycle.api.caller import caller
from lifecycle.api.etags import IF_MATCH, require_match
from lifecycle.api.serializing import StrictSerializer
from lifecycle.core import clock
from lifecycle.core.reasons import refuse_if
from lifecycle.core.severities import READING_ORDER
from lifecycle.evidence.due import count_overdue
from lifecycle.policies.due_dates import NOTE_MAX, DueDates, due_dates, save_due_dates, why_not_save
from lifecycle.policy.due_dates import DAYS_MAX, EXPOSURES, FIXES, ROWS_MAX, rows_of


class DueRowSerializer(serializers.Serializer[Any]):
    """One row. Of all rows whose conditions a finding meets, the earliest date counts."""

    severity = serializers.CharField(
        required=False, default="", help_text=f"Exactly this one of {', '.join(READING_ORDER)}; empty: any"
    )
    exploited = serializers.BooleanField(
        required=False,
        default=False,
        help_text="Only what a KEV list names; counts from that day if it is later",
    )
    min_epss_percent = serializers.IntegerField(
        min_value=1, max_value=100, required=False, default=None, allow_null=True, help_text="EPSS score from this on"
    )
    fix = serializers.ChoiceField(
        choices=FIXES, required=False, default="", help_text="yes: with a fixed version; no: without; empty: both"
    )
    exposure = serializers.ChoiceField(
        choices=EXPOSURES, required=False, default="", help_text="Only in environments like this; empty: everywhere"
    )
    days = serializers.IntegerField(min_value=0, max_value=DAYS_MAX, help_text="After the finding was first seen")


class DueDatesSerializer(serializers.Serializer[Any]):
    """The table. Revision 0 is the one that Gravingdock ships."""

    revision = serializers.IntegerField()
    rows = DueRowSerializer(many=True)
    changed_by = serializers.CharField(help_text="Empty for revision 0")
    changed_at = serializers.DateTimeField(allow_null=True)
    note = serializers.CharField()


class DueDatesBody(StrictSerializer):
    rows = serializers.ListField(child=serializers.JSONField(), help_text=f"Whole rows, at most {ROWS_MAX}")
    note = serializers.CharField(max_length=NOTE_MAX, required=False, default="", allow_blank=True)


class DueDraftBody(StrictSerializer):
    rows = serializers.ListField(child=serializers.JSONField(), help_text=f"Whole rows, at most {ROWS_MAX}")


class OverdueSerializer(serializers.Serializer[Any]):
    findings = serializers.IntegerField(help_text="A vulnerability in an image in use counts once")
    images = serializers.IntegerField(help_text="Number of images with one of them")
    severities = serializers.DictField(child=serializers.IntegerField(), help_text="Number of findings by severity")


class DueWhatIfSerializer(serializers.Serializer[Any]):
    now = OverdueSerializer(help_text="What is overdue by the table as it is")
    then = OverdueSerializer(help_text="What would be overdue by the rows of the request")


class DueDatesView(APIView):
    """When findings are due."""

    @extend_schema(operation_id="due_dates_retrieve", responses=DueDatesSerializer)
    def get(self, request: Request) -> Response:
        """Return the table of due dates, with its ETag."""
        return _answer(due_dates())

    @extend_schema(
        operation_id="due_dates_update", parameters=[IF_MATCH], request=DueDatesBody, responses=DueDatesSerializer
    )
    def put(self, request: Request) -> Response:
        """Save the table (admins). Needs If-Match: 428 without it, 412 when somebody saved meanwhile."""
        user = caller(request)
        refuse_if(why_not_save(user))
        current = due_dates()
        require_match(request, current.etag)
        body = DueDatesBody(data=request.data)
        body.is_valid(raise_exception=True)
        values: dict[str, Any] = body.validated_data
        return _answer(save_due_dates(values["rows"], actor=user, seen=current.revision, note=values["note"]))


class DueWhatIfView(APIView):
    """What another table would change."""

    @extend_schema(operation_id="due_dates_what_if", request=DueDraftBody, responses=DueWhatIfSerializer)
    def post(self, request: Request) -> Response:
        """Return how many findings are overdue now, and would be by other rows (admins). Nothing is stored."""
        refuse_if(why_not_save(caller(request)))
        body = DueDraftBody(data=request.data)
        body.is_valid(raise_exception=True)
        rows, now = rows_of(body.validated_data["rows"]), clock.now()
        answer = {"now": asdict(count_overdue(due_dates().rows, now)), "then": asdict(count_overdue(rows, now))}
        return Response(DueWhatIfSerializer(answer).data)


def _answer(table: DueDates) -> Response:
    document = {
        "revision": table.revision,
        "rows": [row.as_json() for row in table.rows],
        "changed_by": table.changed_by,
        "changed_at": table.changed_at,
        "note": table.note,
    }
    return Response(DueDatesSerializer(document).data, headers={"ETag": table.etag})
