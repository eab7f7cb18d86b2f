"""A worker in which every crawl kills its process, as a segmentation fault or the kernel's memory killer would."""

from __future__ import annotations

import os
import signal

from celery.signals import worker_process_init

from config.celery import app

__all__ = ["app"]


@worker_process_init.connect
def let_crawls_crash(**_: object) -> None:
    from lifecycle.jobs import handlers
    from lifecycle.jobs.models import JobKind

    handlers._HANDLERS[JobKind.CRAWL] = lambda run: os.kill(os.getpid(), signal.SIGSEGV)
