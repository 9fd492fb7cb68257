"""Collections in pages, and many requests in one: what Graph's answers to them must look like. Pure.

In comes decoded JSON, out go pages and the links between them. All raise AttemptError for what Graph would
not say: it may be whole the next time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aim.bridges.msgraph import faults
from aim.bridges.msgraph.graph import Item, Page
from aim.bridges.msgraph.throttle import AttemptError
from aim.errors import SourceInvalid

NEXT, DELTA = "@odata.nextLink", "@odata.deltaLink"

BATCH = 20
"""How many requests fit into one (https://learn.microsoft.com/graph/json-batching)."""

_MOST_PAGES = 100_000
_MOST_EMPTY = 1_000
"""Pages in a row without anything on them: Graph may give some, but not for ever."""

_TOKEN = re.compile(r"[?&](?:\$|%24)(?:delta|skip)token=(?!latest\b)", re.IGNORECASE)


def is_delta(url: str) -> bool:
    """Whether it asks for a delta query, at its start or in the course of it."""
    path = urlsplit(url).path.rstrip("/").removesuffix("()")
    return path.rsplit("/", 1)[-1].lower() in {"delta", "microsoft.graph.delta"}


def goes_on(url: str) -> bool:
    """Whether it goes on from what Graph remembers, and may forget."""
    return _TOKEN.search(url) is not None


@dataclass(slots=True)
class Trail:
    """One collection, page by page: where we are, and where we have been."""

    what: str
    """Names the request in messages."""
    url: str
    is_delta: bool
    _been: set[int] = field(default_factory=set)
    _empty: int = 0

    def page(self, data: object) -> tuple[Page, str | None]:
        """What is on the page at `url`, and the link to the next one; None on the last."""
        value = data.get("value") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(value, list):
            raise self._malformed("`value` is missing, or no list")
        if not all(isinstance(item, dict) for item in value):
            raise self._malformed("`value` holds something that is no object")
        following, delta = self._link(data, NEXT), self._link(data, DELTA)
        if following is not None and (following == self.url or hash(following) in self._been):
            raise self._malformed("the link to the next page leads back")
        if (delta is not None) != (self.is_delta and following is None):
            raise self._malformed("it is neither the last page nor one before it")
        return Page(value, delta), following

    def go(self, url: str, page: Page) -> None:
        """On to the next page. Raises SourceInvalid if that has no end."""
        # Links are long and may be many: a number for each is enough to know it again.
        self._been.add(hash(self.url))
        self.url = url
        self._empty = 0 if page.items else self._empty + 1
        if len(self._been) >= _MOST_PAGES or self._empty >= _MOST_EMPTY:
            raise SourceInvalid(f"{self.what}: the pages have no end", faults.ADDRESS)

    def _link(self, data: Mapping[str, object], name: str) -> str | None:
        link = data.get(name)
        if link is None:
            return None
        if not isinstance(link, str) or not link:
            raise self._malformed(f"{name} is no link")
        return link

    def _malformed(self, why: str) -> AttemptError:
        return AttemptError(faults.malformed(self.what, why))


# -- batches ---------------------------------------------------------------------------------------------


def chunks(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many as fit into one request each."""
    for start in range(0, len(paths), BATCH):
        yield paths[start : start + BATCH]


def batch_body(paths: Sequence[str], numbers: Sequence[int]) -> Item:
    """The request for those of `paths`."""
    return {"requests": [{"id": str(number), "method": "GET", "url": paths[number]} for number in numbers]}


@dataclass(frozen=True, slots=True)
class Answer:
    """One of a batch."""

    status: int
    headers: Mapping[str, str]
    """Their names in lower case."""
    body: object


def batch_answers(what: str, data: object, numbers: Sequence[int]) -> Mapping[int, Answer]:
    """The answers by number: to all of `numbers`, which Graph gives in any order."""
    responses = data.get("responses") if isinstance(data, dict) else None
    if not isinstance(responses, list):
        raise AttemptError(faults.malformed(what, "`responses` is missing, or no list"))
    answers = {str(item.get("id")): _answer(what, item) for item in responses if isinstance(item, dict)}
    if answers.keys() != {str(number) for number in numbers}:
        raise AttemptError(faults.malformed(what, "it does not answer each request once"))
    return {number: answers[str(number)] for number in numbers}


def _answer(what: str, item: Item) -> Answer:
    status, headers = item.get("status"), item.get("headers")
    if not isinstance(status, int):
        raise AttemptError(faults.malformed(what, "an answer has no status"))
    told = headers if isinstance(headers, dict) else {}
    return Answer(status, {str(name).lower(): str(value) for name, value in told.items()}, item.get("body"))
