"""`/jobs/`."""

from __future__ import annotations

from django.urls import path

from lifecycle.pages.jobs import views

urlpatterns = [
    path("jobs/", views.jobs, name="jobs"),
    path("jobs/bulk/", views.bulk, name="jobs-bulk"),
    path("jobs/<int:pk>/", views.job, name="job"),
    path("jobs/<int:pk>/log.txt", views.raw_log, name="job-log-raw"),
    path("jobs/<int:pk>/cancel/", views.cancel, name="job-cancel"),
    path("jobs/<int:pk>/retry/", views.retry, name="job-retry"),
]
