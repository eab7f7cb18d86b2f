"""`manage.py import_trusted_sources FILE --actor NAME`: create or replace trusted sources by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from lifecycle.cli import yaml_texts
from lifecycle.core.errors import LifecycleError
from lifecycle.trust import services
from lifecycle.trust.types import parse_source


class Command(BaseCommand):
    help = "Create or replace trusted sources from a YAML or JSON file: a list of sources. All of them, or none."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help="YAML or JSON file; - for standard input")
        parser.add_argument("--actor", required=True, metavar="NAME", help="account that changes the sources")

    def handle(self, *args: Any, **options: Any) -> None:
        actor = User.objects.filter(username=options["actor"], is_active=True).first()
        if actor is None:
            raise CommandError(f"There is no active account {options['actor']!r}.")
        try:
            text = sys.stdin.read() if options["file"] == "-" else Path(options["file"]).read_text()
            value = yaml_texts.load(text)  # JSON is YAML
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise CommandError(f"{options['file']}: {error}") from error
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise CommandError("The file must hold a list of sources.")
        specs = []
        for number, entry in enumerate(value, start=1):
            try:
                specs.append(parse_source(entry))
            except LifecycleError as error:
                raise CommandError(f"Source {number}: {error.message}") from error
        try:
            results = services.put_sources(specs, actor=actor)
        except LifecycleError as error:
            raise CommandError(error.message) from error
        for name, what in results.items():
            self.stdout.write(f"{name}: {what}")
