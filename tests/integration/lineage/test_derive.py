"""Deriving bases from layers, in any order of arrival."""

from __future__ import annotations

import itertools
import json
from io import StringIO

import pytest
from django.core.management import call_command

from lifecycle.core.errors import Malformed
from lifecycle.jobs.models import Job
from lifecycle.lineage import queries, services
from lifecycle.lineage.models import Ancestry, Derivation
from lifecycle.oci.chains import TRAPS, chain_ids
from lifecycle.registry.models import Image, IndexEntry, Layer
from tests.factories.dock import sha

pytestmark = pytest.mark.django_db
TRAP = sorted(TRAPS)[0]


def make(name, diff_ids=(), digests=(), *, kind="manifest", base="", os="linux", architecture="amd64"):
    count = max(len(diff_ids), len(digests))
    diff_ids = [item if item is None or ":" in item else sha(item) for item in diff_ids] or [""] * count
    digests = [item if item is None or ":" in item else sha(item) for item in digests] or [""] * count
    diff_chain, digest_chain = chain_ids(diff_ids), chain_ids(digests)
    image = Image.objects.create(
        digest=sha(name), kind=kind, media_type="x", layer_count=count, base_digest=base, os=os,
        architecture=architecture, diff_chain_id=diff_chain[-1] if count else "",
        digest_chain_id=digest_chain[-1] if count else "",
    )  # fmt: skip
    for position in range(count):
        Layer.objects.create(
            image=image, position=position, diff_id=diff_ids[position] or "", digest=digests[position] or "",
            diff_chain_id=diff_chain[position], digest_chain_id=digest_chain[position],
        )  # fmt: skip
    return image


def edges():
    return {(row.derived.digest, row.base.digest) for row in Derivation.objects.select_related("base", "derived")}


def pair(derived, base):
    return derived.digest, base.digest


def closure():
    return set(Ancestry.objects.values_list("descendant_id", "ancestor_id", "depth"))


def test_derive_finds_deepest_prefix_and_updates_closure():
    base, middle, app = make("base", "a"), make("middle", "ab"), make("app", "abc")
    services.derive([base.pk, middle.pk, app.pk])
    assert edges() == {pair(middle, base), pair(app, middle)}
    assert closure() == {(middle.pk, base.pk, 1), (app.pk, middle.pk, 1), (app.pk, base.pk, 2)}
    assert services.derive([base.pk, middle.pk, app.pk]) == set()
    assert queries.descendant_count(base) == 2
    first = queries.descendants_page(base, limit=1)
    assert [row.descendant for row in first] == [middle]
    after = (first[0].depth, first[0].descendant_id)
    assert [row.descendant for row in queries.descendants_page(base, after=after)] == [app]


def test_derive_result_does_not_depend_on_arrival_order():
    rows = [("base", "a"), ("middle", "ab"), ("app", "abc"), ("leaf", "abcd")]
    seen = []
    for order in itertools.permutations(rows):
        Image.objects.all().delete()
        for name, layers in order:
            services.derive([make(name, layers).pk])
        seen.append((edges(), {(a.descendant.digest, a.ancestor.digest, a.depth) for a in Ancestry.objects.all()}))
    assert all(item == seen[0] for item in seen)
    assert len(seen[0][0]) == 3
    assert len(seen[0][1]) == 6


def test_derive_keeps_all_bases_of_equal_depth():
    one, two, app = make("one", "ab"), make("two", "ab"), make("app", "abc")
    services.derive([one.pk, two.pk, app.pk])
    assert edges() == {pair(app, one), pair(app, two)}


def test_shared_prefix_of_trap_layers_only_is_no_base():
    empty, app, real = make("empty", [TRAP]), make("app", [TRAP, "a", "b"]), make("real", [TRAP, "a"])
    services.derive([empty.pk, app.pk, real.pk])
    assert edges() == {pair(app, real)}


def test_derive_never_mixes_diff_ids_and_digests():
    # The digests are equal but the diff ids differ. Both rows have diff ids, so only these count.
    make("liar", ["x"], ["d1"])
    app = make("app", ["a", "b"], ["d1", "d2"])
    by_digest = make("by digest", (), ["d1"])
    services.derive([app.pk])
    assert edges() == {pair(app, by_digest)}


def test_unknown_layer_matches_nothing():
    make("base", ["a", None])
    app = make("app", ["a", None, "c"])
    services.derive([app.pk])
    assert edges() == set()


def test_annotation_has_low_confidence_and_merges_with_layers():
    base = make("base", "a")
    app = make("app", "ab", base=base.digest)
    other = make("other", "x", base=base.digest)
    services.derive([base.pk, app.pk, other.pk])
    rows = {row.derived_id: row for row in Derivation.objects.all()}
    assert (rows[app.pk].evidence, rows[app.pk].confidence) == (["annotation", "layers"], "high")
    assert (rows[other.pk].evidence, rows[other.pk].confidence) == (["annotation"], "low")


def test_annotation_of_index_means_child_of_same_platform():
    index = make("index", kind="index")
    amd, arm = make("amd", "a"), make("arm", "b", architecture="arm64")
    for position, child in enumerate((amd, arm)):
        IndexEntry.objects.create(index=index, child=child, position=position)
    app = make("app", "xy", base=index.digest, architecture="arm64")
    services.derive([app.pk])
    assert edges() == {pair(app, arm)}


def test_declared_base_is_linked_when_it_arrives_later():
    app = make("app", "xy", base=sha("base"))
    services.derive([app.pk])
    base = make("base", "a")
    services.derive([base.pk])
    assert edges() == {pair(app, base)}


def test_derive_stops_at_circular_annotations():
    one = make("one", "a", base=sha("two"))
    two = make("two", "b", base=sha("one"))
    services.derive([one.pk, two.pk])
    assert closure() == {(one.pk, two.pk, 1), (two.pk, one.pk, 1)}


def test_declared_base_survives_second_derive_and_moves_descendants():
    base, app, leaf = make("base", "z"), make("app", "ab"), make("leaf", "abc")
    services.derive([base.pk, app.pk, leaf.pk])
    services.declare_base(app, base)
    assert (leaf.pk, base.pk, 2) in closure()
    services.derive([app.pk])
    row = Derivation.objects.get(derived=app)
    assert (row.base, row.evidence, row.confidence) == (base, ["declared"], "high")
    with pytest.raises(Malformed):
        services.declare_base(app, app)
    before = closure()
    services.rebuild_closure()
    assert closure() == before


def test_command_prints_sorted_lines():
    base, middle, app = make("base", "a"), make("middle", "ab"), make("app", "abc")
    services.derive([base.pk, middle.pk, app.pk])
    out = StringIO()
    call_command("lineage", "--json", stdout=out)
    lines = out.getvalue().splitlines()
    assert lines == sorted(lines)
    assert {"image": app.digest, "base": middle.digest, "evidence": ["layers"], "confidence": "high"} in [
        json.loads(line) for line in lines
    ]


def said(image, *bases):
    services.set_proven_bases(image, [base if isinstance(base, str) else base.digest for base in bases])
    services.derive([image.pk])


def test_provenance_names_a_base_whose_layers_are_not_shared():
    base, app = make("base", "a"), make("app", "xy")
    said(app, base, sha("unknown here"), app)
    row = Derivation.objects.get()
    assert (row.base, row.evidence, row.confidence) == (base, ["provenance"], "medium")
    assert closure() == {(app.pk, base.pk, 1)}
    said(app, base)
    assert Derivation.objects.get() == row
    said(app)  # the statement verifies no longer
    assert edges() == set()
    assert closure() == set()


def test_provenance_adds_to_what_layers_prove():
    base, app = make("base", "a"), make("app", "ab")
    said(app, base)
    row = Derivation.objects.get()
    assert (row.evidence, row.confidence) == (["layers", "provenance"], "high")
    said(app)
    row.refresh_from_db()
    assert (row.evidence, row.confidence) == (["layers"], "high")


def test_base_that_arrives_after_its_provenance_is_found():
    app = make("app", "xy")
    said(app, sha("base"))
    assert edges() == set()
    base = make("base", "a")
    services.derive([base.pk])
    assert edges() == {pair(app, base)}


def test_provenance_of_an_index_speaks_for_its_images_by_platform():
    def index(name, *children):
        made = make(name, kind="index")
        for position, child in enumerate(children):
            IndexEntry.objects.create(index=made, child=child, position=position, platform=child.architecture)
        return made

    bases = [make(f"base-{arch}", "a", architecture=arch) for arch in ("amd64", "arm64")]
    apps = [make(f"app-{arch}", "xy", architecture=arch) for arch in ("amd64", "arm64")]
    base, app = index("base", *bases), index("app", *apps)
    said(app, base)
    assert edges() == {pair(apps[0], bases[0]), pair(apps[1], bases[1])}
    said(app)
    assert edges() == set()


def test_changed_provenance_queues_the_search_once():
    app = make("app", "xy")
    for _ in range(2):
        services.set_proven_bases(app, [sha("base")])
    assert list(Job.objects.values_list("kind", "subject_id")) == [("lineage", app.pk)]
