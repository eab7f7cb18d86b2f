"""`manage.py crawl_registry`: ingest the images of a registry that notifications missed, now or by a worker."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from lifecycle.core.errors import LifecycleError
from lifecycle.ingest import services
from lifecycle.registry.models import Registry
from lifecycle.registry.services import ensure_managed_registry


class Command(BaseCommand):
    help = "Compare a registry with the database, and ingest changes that notifications missed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--registry", help="name of the registry (default: the managed registry)")
        parser.add_argument("--repository", help="only this repository")
        parser.add_argument("--queue", action="store_true", help="queue a job for the workers and print its ID")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["registry"]
        registry = Registry.objects.filter(name=name).first() if name else ensure_managed_registry()
        if registry is None:
            raise CommandError(f"Registry {name} not found.")
        repository = options["repository"] or ""
        if options["queue"]:
            job = services.queue_crawl(registry, repository_name=repository)
            self.stdout.write(json.dumps({"job": job.pk}))
            return
        try:
            counts = services.crawl(registry.pk, repository_name=repository or None, report=self.stderr.write)
        except LifecycleError as error:
            raise CommandError(error.message) from error
        self.stdout.write(json.dumps(counts))
