"""The job pages: the list of the reader's jobs, one job with its log, cancel and retry."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.cache import get_conditional_response, patch_vary_headers
from django.views.decorators.http import require_POST, require_safe

from lifecycle.core.errors import Conflict, Malformed, NotFound, NotPermitted
from lifecycle.core.paging import keyset_page
from lifecycle.jobs import steering
from lifecycle.jobs.access import job_for
from lifecycle.jobs.kinds import all_kinds, kind_called, names
from lifecycle.jobs.models import Job
from lifecycle.jobs.queries import jobs_visible_to, log_tail
from lifecycle.pages.jobs import page_queries
from lifecycle.pages.jobs.raw_log import raw_log_answer
from lifecycle.pages.requests import chosen, cursors, reader, selected_ids, sort_of

LOG_LINES: Final = 500  # on the page; the raw log has all


@require_safe
def jobs(request: HttpRequest) -> HttpResponse:
    """List the jobs that the reader can see, newest first."""
    return _jobs(request)


def _jobs(request: HttpRequest, *, status: int = 200, bulk: dict[str, Any] | None = None) -> HttpResponse:
    user, kind, state = reader(request), chosen(request, "kind", names()), chosen(request, "state", Job.State.values)
    rows = jobs_visible_to(user)
    if kind:
        rows = rows.filter(kind=kind)
    if state:
        rows = rows.filter(state=state)
    sort, order = sort_of(request, {"created": ("-id",)})
    page = keyset_page(rows, order, **cursors(request))
    subjects = page_queries.subjects_of(page.rows, user)
    context = {
        "page": page,
        "sort": sort,
        "rows": [(job, kind_called(job.kind).label, subjects[job.pk]) for job in page.rows],
        "kind": kind,
        "state": state,
        "kinds": [(kind.name, kind.label) for kind in all_kinds()],
        "states": Job.State.choices,
    }
    return render(request, "lifecycle/jobs/jobs.html", context | (bulk or {}), status=status)


@require_safe
def job(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one job with its result and its log. An open page polls, and gets only the fragment."""
    user = reader(request)
    row = job_for(user, pk)
    lines, is_cut = log_tail(row.log_lines.all(), limit=LOG_LINES)
    is_fragment = getattr(request, "htmx", False)
    etag = f"{row.pk}-{row.state}-{row.attempts}-{row.progress_done}-{lines[-1].pk if lines else 0}"
    # "Time left" changes with the clock. While the page shows it, the page is never unchanged.
    left_s = page_queries.seconds_left(row)
    if is_fragment and left_s is None:
        unchanged = get_conditional_response(request, etag=f'"{etag}"')
        if unchanged is not None:
            return unchanged
    context = {
        "job": row,
        "kind_words": kind_called(row.kind).label,
        "subject": page_queries.subjects_of([row], user)[row.pk],
        "lines": lines,
        "is_cut": is_cut,
        "is_open": not row.is_final,
        "left_s": left_s,
        "why_not_cancelled": steering.why_not_cancelled(row),
        "why_not_retried": steering.why_not_retried(row),
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
    """Cancel a job."""
    steering.cancel(pk, actor=reader(request))
    messages.success(request, "Job cancelled.")
    return redirect("lifecycle:job", pk)


@require_POST
def retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Retry a job, and redirect to the new job."""
    new_job = steering.retry(pk, actor=reader(request))
    messages.success(request, f"Job {pk} is retried by this job.")
    return redirect("lifecycle:job", new_job.pk)


@require_POST
def bulk(request: HttpRequest) -> HttpResponse:
    """Cancel or retry each selected job. One refusal does not stop the others, and each is named."""
    ids, act = selected_ids(request), request.POST.get("act", "")
    if act not in {"cancel", "retry"}:
        raise Malformed("Unknown action. Choose cancel or retry.")
    if not ids:
        return _jobs(request, status=422, bulk={"bulk_problem": "Select at least one job."})
    done, refused = 0, []
    for number in ids:
        try:
            (steering.cancel if act == "cancel" else steering.retry)(number, actor=reader(request))
            done += 1
        except (NotFound, NotPermitted, Conflict) as error:
            refused.append(f"Job {number}: {error.message}")
    if done:
        noun, word = "job" if done == 1 else "jobs", "cancelled" if act == "cancel" else "retried"
        messages.success(request, f"{done} {noun} {word}.")
    for line in refused:
        messages.warning(request, line)
    return redirect("lifecycle:jobs")
