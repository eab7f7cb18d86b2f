"""docs/reference/inventory-format.md: its examples are imported, and printed as it says."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "inventory-format.md"
IMPORTED, LINEAGE, FINDINGS = slice(0, 2), slice(2, 3), slice(3, 5)  # its examples, in their order


def printed(*arguments, **options):
    out = StringIO()
    call_command(*arguments, stdout=out, **options)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_the_examples_of_the_reference_are_what_the_commands_take_and_print(tmp_path):
    examples = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```", PAGE.read_text(), re.M | re.S)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in examples[IMPORTED]))
    feed = ROOT / "lifecycle" / "advisories" / "data" / "demo"
    call_command("sync_advisories", "--from", str(feed), stdout=StringIO())
    call_command("import_inventory", str(file), stdout=StringIO())
    assert printed("lineage", "--json") == examples[LINEAGE]
    shop = examples[IMPORTED][1]["manifest_digest"]
    assert printed("findings", "--image", shop, "--json") == examples[FINDINGS]
