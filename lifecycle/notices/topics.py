"""The registry of topics. Each package registers the topics that it tells people about."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Topic:
    """One kind of notice, which people and channels choose to get or not."""

    name: str  # stored, and in the type of a webhook's event: promotion.asked
    label: str
    words: str  # when it is told, and to whom
    is_mailed: bool = True  # without a choice of the reader


_TOPICS: Final[dict[str, Topic]] = {}


def register(topic: Topic) -> Topic:
    """Add a topic and return it; raises ValueError when the name is taken."""
    if topic.name in _TOPICS:
        raise ValueError(f"Topic {topic.name} is already registered")
    _TOPICS[topic.name] = topic
    return topic


def all_topics() -> Collection[Topic]:
    """Return all topics, in the order of their registration."""
    return _TOPICS.values()


def topic_called(name: str) -> Topic | None:
    """Return the topic with this name; None for one of an earlier release."""
    return _TOPICS.get(name)


def label_of(name: str) -> str:
    """Return the label of a stored topic."""
    topic = _TOPICS.get(name)
    return topic.label if topic is not None else name
