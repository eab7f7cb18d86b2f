"""The reader's list of notices, and their preferences."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from lifecycle.core.paging import keyset_page
from lifecycle.notices import messages as outgoing
from lifecycle.notices import preferences as wishes
from lifecycle.notices.queries import inbox_of
from lifecycle.notices.reading import mark_all_read, mark_read
from lifecycle.notices.topics import all_topics
from lifecycle.pages.form_errors import errors_shown_on
from lifecycle.pages.notices.forms import MuteForm, PreferencesForm
from lifecycle.pages.requests import chosen, cursors, reader


@require_safe
def notices(request: HttpRequest) -> HttpResponse:
    """List what the reader was told, newest first."""
    shown = chosen(request, "show", ("unread",))
    rows = inbox_of(reader(request), is_unread=bool(shown))
    context = {"page": keyset_page(rows, ("-id",), **cursors(request)), "shown": shown}
    return render(request, "lifecycle/notices/notices.html", context)


@require_POST
def open_notice(request: HttpRequest, pk: int) -> HttpResponse:
    """Mark a notice as read, and go to the page that it is about. A GET would write."""
    return redirect(mark_read(pk, actor=reader(request)).notice.link)


@require_POST
def read(request: HttpRequest, pk: int) -> HttpResponse:
    """Mark a notice as read, and stay in the list."""
    mark_read(pk, actor=reader(request))
    return redirect("lifecycle:notices")


@require_POST
def read_all(request: HttpRequest) -> HttpResponse:
    """Mark all notices of the reader as read."""
    if not mark_all_read(actor=reader(request)):
        messages.info(request, "There are no unread notices.")
    return redirect("lifecycle:notices")


@require_http_methods(["GET", "HEAD", "POST"])
def preferences(request: HttpRequest) -> HttpResponse:
    """Show or change what the reader gets, and when."""
    user = reader(request)
    row = wishes.preferences_of(user)
    form = PreferencesForm(request.POST if request.method == "POST" else None, initial=PreferencesForm.initial_of(row))
    if request.method == "POST" and form.is_valid():
        with errors_shown_on(form):
            wishes.save_preferences(form.wish(), actor=user)
            messages.success(request, "Preferences saved.")
            return redirect("lifecycle:notice-preferences")
    return _preferences_page(request, form, MuteForm())


@require_POST
def mute(request: HttpRequest) -> HttpResponse:
    """Mute something until a time."""
    user = reader(request)
    form = MuteForm(request.POST)
    if form.is_valid():
        with errors_shown_on(form):
            until = form.until_in(ZoneInfo(user.time_zone))
            wishes.mute(form.cleaned_data["scope"], form.cleaned_data["value"], until, actor=user)
            messages.success(request, "Muted.")
            return redirect("lifecycle:notice-preferences")
    initial = PreferencesForm.initial_of(wishes.preferences_of(user))
    return _preferences_page(request, PreferencesForm(initial=initial), form)


def _preferences_page(request: HttpRequest, form: PreferencesForm, mute_form: MuteForm) -> HttpResponse:
    user = reader(request)
    on = {way: set(form[way].value() or ()) for way in wishes.WAYS}
    topics = [
        {"topic": topic, "inbox": topic.name in on[wishes.INBOX], "mail": topic.name in on[wishes.MAIL]}
        for topic in all_topics()
    ]
    context = {
        "form": form,
        "mute_form": mute_form,
        "topics": topics,
        "mutes": wishes.mutes_of(user),
        "why_no_mail": outgoing.why_no_mail(user),
    }
    is_wrong = bool(form.errors or mute_form.errors)
    return render(request, "lifecycle/notices/preferences.html", context, status=422 if is_wrong else 200)


@require_POST
def unmute(request: HttpRequest, pk: int) -> HttpResponse:
    """End a mute now."""
    wishes.unmute(pk, actor=reader(request))
    return redirect("lifecycle:notice-preferences")


@require_POST
def test_mail(request: HttpRequest) -> HttpResponse:
    """Send the reader a test mail."""
    user = reader(request)
    if why := outgoing.why_no_mail(user):
        messages.error(request, why)
    else:
        outgoing.test_mail(actor=user)
        messages.success(request, f"A test mail is on its way to {user.email}.")
    return redirect("lifecycle:notice-preferences")
