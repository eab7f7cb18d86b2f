"""Does a statement's product or package URL name this image or package? Pure functions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from packageurl import PackageURL

from lifecycle.vex.types import Product

_OCI: Final = "oci"
_HUB: Final = frozenset({"index.docker.io", "registry-1.docker.io"})  # other names of docker.io


@dataclass(frozen=True, slots=True)
class Package:
    """A package version of an image, as far as statements can name it."""

    purl: str
    source_name: str = ""
    source_version: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """An image, as far as statements can name it."""

    digests: frozenset[str]  # its own, and those of the indexes that hold it
    places: frozenset[str]  # "host/repository", all that have it
    architecture: str = ""


@lru_cache(maxsize=20_000)
def _parsed(purl: str) -> PackageURL | None:
    try:
        return PackageURL.from_string(purl)
    except (ValueError, UnicodeError):  # a scanner can write what no parser reads
        return None


def names_package(pattern: str, package: Package) -> bool:
    """Return whether a package URL in a statement names this package.

    Without a version or qualifiers, it names any (protocols of VEX tools agree on this). With `arch=source` it names
    the binary packages built from this source package.
    """
    if pattern == package.purl:
        return True
    wanted, own = _parsed(pattern), _parsed(package.purl)
    if wanted is None or own is None:
        return False
    qualifiers = dict(wanted.qualifiers or {})
    own_qualifiers = dict(own.qualifiers or {})
    name, version = own.name, own.version or package.version
    if qualifiers.get("arch") == "source" and wanted.type in {"deb", "rpm", "apk"}:
        del qualifiers["arch"]
        name, version = package.source_name or name, package.source_version or version
    return (
        (wanted.type, wanted.namespace or "", wanted.name) == (own.type, own.namespace or "", name)
        and (not wanted.version or wanted.version == version)
        and (not wanted.subpath or wanted.subpath == own.subpath)
        and all(own_qualifiers.get(key) == value for key, value in qualifiers.items())
    )


def is_image_purl(purl: str) -> bool:
    """Return whether a package URL names an image."""
    found = _parsed(purl)
    return found is not None and found.type == _OCI


def _names_image(purl: PackageURL, target: Target) -> bool:
    qualifiers = dict(purl.qualifiers or {})
    if qualifiers.get("arch") and target.architecture and qualifiers["arch"] != target.architecture:
        return False
    if purl.version:
        return purl.version in target.digests
    if qualifiers.get("tag"):  # a tag moves: it does not say which image was meant
        return False
    if url := qualifiers.get("repository_url"):
        return _place(url) in target.places
    return any(place.rpartition("/")[2] == purl.name for place in target.places)


def _place(url: str) -> str:
    host, _, path = url.partition("://")[2].partition("/") if "://" in url else url.partition("/")
    host = "docker.io" if host in _HUB else host
    return f"{host}/{path.rstrip('/')}"


def applies(product: Product, target: Target, package: Package) -> bool:
    """Return whether a product of a statement is this package in this image.

    A product is an image by digest, all images of a repository, or a package wherever it is.
    """
    if product.digests and not target.digests & set(product.digests):
        return False
    if product.purl:
        found = _parsed(product.purl)
        if found is None:
            return False
        if found.type == _OCI:
            # With a digest beside it, the digest has decided already. Any repository can hold the image.
            if not product.digests and not _names_image(found, target):
                return False
        elif not names_package(product.purl, package) or product.packages:
            return False  # a package inside of a package cannot be told from others of its name
    return not product.packages or any(names_package(purl, package) for purl in product.packages)


def any_applies(products: Collection[Product], target: Target, package: Package) -> bool:
    """Return whether one of the products is this package in this image."""
    return any(applies(product, target, package) for product in products)
