"""The pages of jobs: what runs on the reader's behalf, one job with its log, stop and try again."""

from __future__ import annotations

from typing import Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.views.decorators.http import require_POST, require_safe

from lifecycle.core.paging import keyset_page
from lifecycle.jobs import steering
from lifecycle.jobs.access import job_for
from lifecycle.jobs.kinds import all_kinds, kind_called, names
from lifecycle.jobs.models import Job
from lifecycle.jobs.queries import jobs_visible_to, log_tail
from lifecycle.pages.jobs import page_queries
from lifecycle.pages.jobs.raw_log import raw_log_answer
from lifecycle.pages.requests import cursors, reader

LOG_LINES: Final = 500  # on the page; the raw log has all


@require_safe
def jobs(request: HttpRequest) -> HttpResponse:
    """List the jobs that the reader may see, newest first."""
    user, kind, state = reader(request), request.GET.get("kind", ""), request.GET.get("state", "")
    rows = jobs_visible_to(user)
    if kind in names():
        rows = rows.filter(kind=kind)
    if state in Job.State.values:
        rows = rows.filter(state=state)
    page = keyset_page(rows, ("-id",), **cursors(request))
    subjects = page_queries.subjects_of(page.rows, user)
    context = {
        "page": page,
        "rows": [(job, kind_called(job.kind).label, subjects[job.pk]) for job in page.rows],
        "kind": kind,
        "state": state,
        "kinds": [(kind.name, kind.label) for kind in all_kinds()],
        "states": Job.State.choices,
    }
    return render(request, "lifecycle/jobs/jobs.html", context)


@require_safe
def job(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one job, its result above its log; polled while it is open, and then only the fragment is sent."""
    user = reader(request)
    found = job_for(user, pk)
    lines = log_tail([found.pk], limit=LOG_LINES)
    is_fragment = getattr(request, "htmx", False)
    etag = f"{found.pk}-{found.state}-{found.attempts}-{found.progress_done}-{lines[-1].pk if lines else 0}"
    # A running job's "time left" moves with the clock; while it is shown, the page is never the same.
    left_s = page_queries.seconds_left(found)
    if is_fragment and left_s is None:
        unchanged = get_conditional_response(request, etag=f'"{etag}"')
        if unchanged is not None:
            return unchanged
    context = {
        "job": found,
        "kind_words": kind_called(found.kind).label,
        "subject": page_queries.subjects_of([found], user)[found.pk],
        "lines": lines,
        "is_cut": len(lines) == LOG_LINES,
        "left_s": left_s,
        "why_not_cancelled": steering.why_not_cancelled(found),
        "why_not_retried": steering.why_not_retried(found),
        "etag": etag,
    }
    response = render(request, f"lifecycle/jobs/{'_job' if is_fragment else 'job'}.html", context)
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    return response


@require_safe
def raw_log(request: HttpRequest, pk: int) -> StreamingHttpResponse:
    """Stream the whole log of a job."""
    return raw_log_answer(job_for(reader(request), pk).log_lines.order_by("pk"), filename=f"job-{pk}.log")


@require_POST
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop a job."""
    steering.cancel(pk, actor=reader(request))
    messages.success(request, "The job is cancelled.")
    return redirect("lifecycle:job", pk)


@require_POST
def retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Queue a job again, and go to the new one."""
    again = steering.retry(pk, actor=reader(request))
    messages.success(request, f"This is the job that tries job {pk} again.")
    return redirect("lifecycle:job", again.pk)
