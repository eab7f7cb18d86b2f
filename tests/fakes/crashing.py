"""A worker in which every crawl kills its process, as the kernel's memory killer would, and a plan takes a while."""

from __future__ import annotations

import os
import signal
import time

from celery.signals import worker_process_init

from config.celery import app

__all__ = ["app"]


@worker_process_init.connect
def take_over(**_: object) -> None:
    from lifecycle.jobs import handlers

    handlers._HANDLERS["crawl"] = lambda run: os.kill(os.getpid(), signal.SIGSEGV)
    handlers._HANDLERS["plan"] = lambda run: time.sleep(10)
