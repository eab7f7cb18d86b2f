"""The pages of channels: list, create, change, test, and what was delivered."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.verbs import Verb
from lifecycle.authority.access import team_for
from lifecycle.authority.queries import teams_where
from lifecycle.core.paging import keyset_page
from lifecycle.notices import channels as services
from lifecycle.notices.access import channel_for, message_for
from lifecycle.notices.queries import channels_visible_to, messages_visible_to
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.notices.channel_forms import ChannelForm, NewChannelForm
from lifecycle.pages.requests import cursors, reader


@require_safe
def channels(request: HttpRequest) -> HttpResponse:
    """List the channels that the reader can manage."""
    user = reader(request)
    context = {
        "page": keyset_page(channels_visible_to(user), ("id",), **cursors(request)),
        "may_create": user.is_superuser or teams_where(user, Verb.TEAM_MANAGE).exists(),
    }
    return render(request, "lifecycle/notices/channels.html", context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def new_channel(request: HttpRequest) -> HttpResponse:
    """Create a channel, and show the secret of a webhook once."""
    user = reader(request)
    form = NewChannelForm(user, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            values = dict(form.cleaned_data)
            slug = values.pop("team")
            channel, secret = services.create_channel(team_for(user, slug) if slug else None, **values, actor=user)
            if secret:
                context = {"channel": channel, "secret": secret}
                return render(request, "lifecycle/notices/channel_secret.html", context)
            return redirect("lifecycle:channel", channel.pk)
    context = {"form": form, "channel": None}
    return render(request, "lifecycle/notices/channel.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
def channel(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a channel and its messages, and change it."""
    user = reader(request)
    row = channel_for(user, pk)
    initial = {"name": row.name, "topics": row.topics, "is_enabled": row.is_enabled}
    form = ChannelForm(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            text = request.POST.get("revision", "")
            revision = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
            services.change_channel(pk, actor=user, revision=revision, **form.cleaned_data)
            messages.success(request, "Channel saved.")
            return redirect("lifecycle:channel", pk)
    sent = messages_visible_to(user).filter(channel=row)
    context = {"form": form, "channel": row, "page": keyset_page(sent, ("-id",), **cursors(request))}
    return render(request, "lifecycle/notices/channel.html", context, status=422 if form.errors else 200)


@require_POST
def test_channel(request: HttpRequest, pk: int) -> HttpResponse:
    """Send a test message to a channel."""
    services.test_channel(pk, actor=reader(request))
    messages.success(request, "A test message is on its way. Its state is in the list below.")
    return redirect("lifecycle:channel", pk)


@require_http_methods(["GET", "HEAD", "POST"])
def delete_channel(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then delete a channel."""
    user = reader(request)
    row = channel_for(user, pk)
    if request.method == "POST":
        services.delete_channel(pk, actor=user)
        messages.success(request, f"Channel {row} deleted.")
        return redirect("lifecycle:channels")
    return render(request, "lifecycle/notices/delete_channel.html", {"channel": row})


@require_POST
def redeliver(request: HttpRequest, pk: int) -> HttpResponse:
    """Send a message of a channel again."""
    user = reader(request)
    message = message_for(user, pk)
    services.redeliver(pk, actor=user)
    messages.success(request, "The message is sent again, with the same id.")
    return redirect("lifecycle:channel", message.channel_id)
