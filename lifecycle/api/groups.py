"""Groups of people in `/api/v1/groups/`: list, create, rename and delete them, and change their members."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Group, GroupMember
from lifecycle.api.caller import caller
from lifecycle.api.serializing import StrictSerializer
from lifecycle.authority import services
from lifecycle.authority.access import group_for
from lifecycle.authority.queries import groups_with_counts, members_seen, with_group_counts


class GroupSerializer(serializers.ModelSerializer[Group]):
    """A group of people."""

    full_name = serializers.CharField(
        source="__str__", read_only=True, help_text="How grants name the group: `devs`, or `shop/devs` of a team"
    )
    team = serializers.CharField(
        source="team.slug", read_only=True, default=None, allow_null=True, help_text="Null: of the installation"
    )
    members = serializers.IntegerField(source="member_count", read_only=True, help_text="Number of its own members")
    grants = serializers.IntegerField(source="grant_count", read_only=True, help_text="Number of its grants")

    class Meta:
        model = Group
        fields = ("id", "slug", "full_name", "name", "team", "source", "members", "grants", "created_at")
        read_only_fields = fields


class GroupBody(StrictSerializer):
    slug = serializers.CharField(max_length=60)
    name = serializers.CharField(max_length=120, required=False, default="", allow_blank=True)
    team = serializers.CharField(
        max_length=60, required=False, default="", allow_blank=True, help_text="Its team; empty: of the installation"
    )
    source = serializers.ChoiceField(  # type: ignore[assignment]  # a field of this name, not the attribute
        choices=Group.Source.choices, required=False, default=Group.Source.MANUAL,
        help_text="`sso`: its members come from sign-in, and nobody adds them by hand",
    )  # fmt: skip


class GroupNameBody(StrictSerializer):
    name = serializers.CharField(max_length=120, allow_blank=True)


class GroupMemberSerializer(serializers.ModelSerializer[GroupMember]):
    """A member of a group: a person or another group."""

    username = serializers.CharField(source="user.username", read_only=True, default=None, allow_null=True)
    group = serializers.CharField(
        source="member.__str__", read_only=True, default=None, allow_null=True, help_text="Name of a group in the group"
    )
    added_by = serializers.CharField(source="added_by.username", read_only=True, default=None, allow_null=True)

    class Meta:
        model = GroupMember
        fields = ("id", "username", "group", "added_by", "created_at")
        read_only_fields = fields


class GroupMemberBody(StrictSerializer):
    username = serializers.CharField(max_length=150, required=False, default="", help_text="A person, or")
    group = serializers.CharField(max_length=121, required=False, default="", help_text="the name of a group")


def _parsed(body: serializers.Serializer[Any]) -> dict[str, Any]:
    body.is_valid(raise_exception=True)
    values: dict[str, Any] = body.validated_data
    return values


def _changed(group: Group) -> Group:
    """Return a group after its change with its counts, also when its actor cannot see it any more."""
    return with_group_counts(Group.objects.select_related("team").filter(pk=group.pk)).get()


class GroupsView(generics.ListAPIView[Group]):
    """The groups of the installation, and of the teams you can see."""

    queryset = Group.objects.none()  # only for the schema; get_queryset returns the rows
    serializer_class = GroupSerializer

    def get_queryset(self) -> QuerySet[Group]:
        return groups_with_counts(caller(self.request)).order_by("pk")

    @extend_schema(request=GroupBody, responses={201: GroupSerializer})
    def post(self, request: Request) -> Response:
        """Create a group: of a team (team.manage), or of the installation (admins only)."""
        group = services.create_group(actor=caller(request), **_parsed(GroupBody(data=request.data)))
        return Response(self.get_serializer(_changed(group)).data, status=201)


class GroupView(generics.GenericAPIView[Group]):
    """One group."""

    serializer_class = GroupSerializer

    @extend_schema(responses=GroupSerializer)
    def get(self, request: Request, group_id: int) -> Response:
        """Return one group."""
        return Response(self.get_serializer(group_for(caller(request), group_id)).data)

    @extend_schema(request=GroupNameBody, responses=GroupSerializer)
    def patch(self, request: Request, group_id: int) -> Response:
        """Change the display name of a group."""
        group = services.rename_group(group_id, actor=caller(request), **_parsed(GroupNameBody(data=request.data)))
        return Response(self.get_serializer(_changed(group)).data)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, group_id: int) -> Response:
        """Delete a group with its grants. Its members lose these roles immediately."""
        services.delete_group(group_id, actor=caller(request))
        return Response(status=204)


class GroupMembersView(generics.ListAPIView[GroupMember]):
    """The members of a group. Those of a group of the installation are shown to who is in it or has it in a team."""

    queryset = GroupMember.objects.none()  # as above
    serializer_class = GroupMemberSerializer

    def get_queryset(self) -> QuerySet[GroupMember]:
        actor = caller(self.request)
        return members_seen(actor, group_for(actor, self.kwargs["group_id"])).order_by("pk")

    @extend_schema(request=GroupMemberBody, responses={201: GroupMemberSerializer})
    def post(self, request: Request, group_id: int) -> Response:
        """Add a person or a group. They get every role of the group, so you need all of its verbs."""
        member = services.add_to_group(group_id, actor=caller(request), **_parsed(GroupMemberBody(data=request.data)))
        return Response(self.get_serializer(member).data, status=201)


class GroupMemberView(generics.GenericAPIView[GroupMember]):
    """One member of a group."""

    serializer_class = GroupMemberSerializer

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, group_id: int, member_id: int) -> Response:
        """Remove a member. Its roles through the group end immediately."""
        services.remove_from_group(group_id, member_id, actor=caller(request))
        return Response(status=204)
