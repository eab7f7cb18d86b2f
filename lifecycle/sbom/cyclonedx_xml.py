"""CycloneDX XML documents, read as a stream."""

from __future__ import annotations

from typing import Any, Final

from lifecycle.core.xml_streams import XmlStream
from lifecycle.sbom import cyclonedx
from lifecycle.sbom.documents import COMPONENTS_MAX, DEPTH_MAX, Document, DocumentRefused

_NAMESPACE: Final = "http://cyclonedx.org/schema/bom/"
_TEXT_MAX: Final = 10_000  # characters of one element that is kept; longer ones are whole licence texts
# Elements with text that the reader needs, and elements that hold others.
_TEXTS: Final = frozenset({"name", "version", "group", "purl", "id", "expression"})
_HOLDERS: Final = frozenset({"bom", "metadata", "components", "component", "tools", "tool", "licenses", "license",
                             "properties"})  # fmt: skip
_LISTS: Final = frozenset({"components", "tools", "licenses", "properties"})


def read_xml(content: bytes) -> Document:
    """Return what a CycloneDX document in XML lists. Raises DocumentRefused with line and column."""
    return cyclonedx.read(_Reader().read(content), "XML")


class _Reader(XmlStream):
    """Builds the JSON shape of the elements that are needed, and skips all others with their content."""

    refusal = DocumentRefused
    depth_max = DEPTH_MAX * 2

    def __init__(self) -> None:
        super().__init__(namespace_separator=" ")
        self.root: dict[str, Any] = {}
        self.namespace = ""
        self.stack: list[tuple[str, Any]] = []  # (name, what it becomes)
        self.skipped = 0  # depth within an element that is not needed
        self.component_count = 0
        self.words: list[str] = []

    def read(self, content: bytes) -> dict[str, Any]:
        self.parse(content)
        return self.root

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        namespace, _, name = tag.rpartition(" ")
        if not self.stack and not self.root:
            self._begin(namespace, name)
            return
        if self.skipped or namespace != self.namespace:
            self.skipped += 1
            return
        self.words = []
        inside = self.stack[-1][0]
        if name == "property" and inside == "properties":
            self.stack.append((name, {"name": attributes.get("name", "")}))
        elif name in _LISTS:
            self.stack.append((name, []))
        elif name in _HOLDERS:
            self.stack.append((name, self._holder(name, attributes)))
        elif name in _TEXTS and inside in {"component", "tool", "license", "licenses"}:
            self.stack.append((name, None))
        else:
            self.skipped = 1

    def _begin(self, namespace: str, name: str) -> None:
        if name != "bom" or not namespace.startswith(_NAMESPACE):
            raise self.refuse("the first element is not a bom of CycloneDX.")
        self.namespace = namespace
        self.root = {"specVersion": namespace.removeprefix(_NAMESPACE)}
        self.stack.append((name, self.root))

    def _holder(self, name: str, attributes: dict[str, str]) -> dict[str, Any]:
        if name != "component":
            return {}
        self.component_count += 1
        if self.component_count > COMPONENTS_MAX:
            raise self.refuse(f"the document lists more than {COMPONENTS_MAX} components.")
        return {"type": attributes.get("type", ""), "#line": f"line {self.parser.CurrentLineNumber}"}

    def end(self, _: str) -> None:
        if self.skipped:
            self.skipped -= 1
            return
        name, made = self.stack.pop()
        if not self.stack:
            return
        words, self.words = "".join(self.words).strip(), []
        if name == "property":
            made["value"] = words
        self._give(name, words if made is None else made)

    def _give(self, name: str, value: Any) -> None:
        """Put a finished element into the one around it."""
        inside, holder = self.stack[-1]
        if isinstance(holder, list):
            if inside == "licenses":
                value = {name: value}
            holder.append(value)
        elif isinstance(holder, dict):
            holder.setdefault(name, value)

    def text(self, words: str) -> None:
        if not self.skipped and self.stack and len(words) <= _TEXT_MAX:
            self.words.append(words)
