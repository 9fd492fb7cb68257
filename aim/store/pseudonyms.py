"""Names of people who were erased, taken out of texts that stay: each becomes `erased:` and a keyed hash.

Between `forgetting`, which finds the rows, and what is in them. The same person is the same pseudonym
everywhere, so the audit still tells how many people were concerned; without the key in `aim.state` nobody can
tell who.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import asyncpg

from aim.planner.actions import identity_of
from aim.planner.document import to_text
from aim.store.queries import QUERIES
from aim.world.recorded import Done

_SHORTEST_ID = 8
"""An id of fewer characters, a number say, is too common a word to be looked for in sentences."""
_NOT_LONGER = r"(?![\w-]|\.\w|:\d)"
"""After a server name: `example.com` is also the beginning of `example.com.au` and of `example.com:8448`."""


async def audit_key(connection: asyncpg.Connection) -> bytes:
    """The key of the hashes, made now if there is none. Within the writer's transaction."""
    key: bytes | None = await connection.fetchval(QUERIES["audit_key"])
    if key is None:
        key = secrets.token_bytes(32)
        await connection.execute(QUERIES["make_audit_key"], key)
    return key


def keyed_hash(key: bytes, text: str) -> bytes:
    """HMAC-SHA256 (RFC 2104)."""
    return hmac.digest(key, text.encode(errors="surrogatepass"), hashlib.sha256)


def pseudonym(key: bytes, mxid: str) -> str:
    """What stands in the audit for somebody who was erased."""
    return f"erased:{keyed_hash(key, mxid).hex()[:32]}"


@dataclass(frozen=True)
class Erased:
    """Somebody who was erased, and how texts speak of them. (No slots: what is worked out once is kept.)"""

    mxid: str
    user_id: str
    pseudonym: str
    emails: tuple[str, ...] = ()

    @property
    def localpart(self) -> str:
        return self.mxid[1:].partition(":")[0]

    @property
    def encoded(self) -> str:
        """The MXID as it stands in the identity of an action."""
        return identity_of("", "", self.mxid)

    @property
    def names(self) -> list[str]:
        """All that sentences call them by."""
        ids = [self.user_id] if len(self.user_id) >= _SHORTEST_ID else []
        return list(dict.fromkeys([self.encoded, self.mxid, *self.emails, *ids]))

    def in_text(self, text: str) -> str:
        """A sentence without them."""
        return self._named.sub(self.pseudonym, text)

    def in_identity(self, identity: str) -> str:
        """The identity of an action without them."""
        return self._identified.sub(self.pseudonym, identity)

    def in_plan(self, plan: str) -> str:
        """The JSON text of a plan without them; its digest stays."""
        try:
            document = json.loads(plan)
        except ValueError:
            return self.in_text(plan)
        if not isinstance(document, dict):
            return self.in_text(plan)
        changed = self._in_document(document)
        return plan if changed == document else to_text(changed)

    def in_state(self, content: str) -> str:
        """The content of a state event, JSON, without the keys and items that are them: a level, a creator.
        What somebody wrote about them is the room's, and stays."""
        kept = self._without(json.loads(content))
        return json.dumps(kept, separators=(",", ":"))

    @cached_property
    def _named(self) -> re.Pattern[str]:
        mxids = [re.escape(name) + _NOT_LONGER for name in dict.fromkeys((self.encoded, self.mxid))]
        emails = [rf"(?i:(?<![\w.+-]){re.escape(address)}){_NOT_LONGER}" for address in self.emails]
        ids = [rf"(?<![\w-]){re.escape(self.user_id)}(?![\w-])"] if len(self.user_id) >= _SHORTEST_ID else []
        return re.compile("|".join([*mxids, *emails, *ids]))

    @cached_property
    def _identified(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.encoded) + _NOT_LONGER)

    def _in_document(self, document: dict[str, Any]) -> dict[str, Any]:
        changed = {key: self._in_value(value) for key, value in document.items()}
        for key, change in (("actions", self._in_action), ("problems", self._in_problem)):
            parts = document.get(key)
            if isinstance(parts, list):
                changed[key] = [
                    change(part) if isinstance(part, dict) else self._in_value(part) for part in parts
                ]
        return changed

    def _in_action(self, action: dict[str, Any]) -> dict[str, Any]:
        changed = {key: self._in_value(value) for key, value in action.items()}
        after = action.get("after")
        if isinstance(after, list):
            changed["after"] = [self.in_identity(name) if isinstance(name, str) else name for name in after]
        if action.get("target") == self.mxid:
            # Names and addresses, old and new ones: whatever is in there is about them.
            changed["details"] = {}
        return changed

    def _in_problem(self, problem: dict[str, Any]) -> dict[str, Any]:
        changed = {key: self._in_value(value) for key, value in problem.items()}
        if problem.get("subject") == self.mxid:
            changed["message"] = "(erased)"
        return changed

    def _in_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.in_text(value)
        if isinstance(value, list):
            return [self._in_value(item) for item in value]
        if isinstance(value, dict):
            return {self.in_text(key): self._in_value(item) for key, item in value.items()}
        return value

    def _without(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._without(item) for item in value if item != self.mxid]
        if isinstance(value, dict):
            return {key: self._without(item) for key, item in value.items() if self.mxid not in (key, item)}
        return value


class Forgotten:
    """Who was erased: their outcomes, plans and leaves are still to come. Those of earlier sessions are known
    by hashes alone, until somebody speaks of them."""

    def __init__(self, key: bytes = b"", hashes: Collection[bytes] = ()) -> None:
        """`hashes` are those of localparts, by that key."""
        self._key = key
        self._hashes = set(hashes)
        self._people: dict[str, Erased] = {}

    def add(self, person: Erased, key: bytes) -> None:
        """They are erased; `key` is that of the hashes."""
        self._key = key
        self._hashes.add(keyed_hash(key, person.localpart))
        self._people[person.mxid] = person

    def notice(self, mxids: Iterable[str]) -> None:
        """These are about to be recorded: who of them was erased is known by name from now on."""
        if not self._hashes:
            return
        for mxid in mxids:
            localpart = mxid[1:].partition(":")[0]
            if mxid not in self._people and keyed_hash(self._key, localpart) in self._hashes:
                self._people[mxid] = Erased(mxid, "", pseudonym(self._key, mxid))

    def are_back(self, localparts: Collection[str]) -> Sequence[bytes]:
        """Users of these names are in the directory: names that may be recorded again. Gives the hashes that
        are to be forgotten."""
        back = self._hashes.intersection(keyed_hash(self._key, name) for name in localparts if self._hashes)
        self._hashes -= back
        self._drop(localparts)
        return sorted(back)

    def _drop(self, localparts: Collection[str]) -> None:
        for person in [one for one in self._people.values() if one.localpart in localparts]:
            del self._people[person.mxid]

    def __contains__(self, mxid: str) -> bool:
        return mxid in self._people

    def in_text(self, text: str) -> str:
        """A sentence without any of them."""
        if not self._people:
            return text
        for person in self._named_in(text):
            text = person.in_text(text)
        return text

    def in_done(self, done: Done) -> Done:
        """A destructive action, begun, without any of them: what their account leaves behind in a room, a
        power level say, goes after them."""
        for person in self._people.values():
            identity = person.in_identity(done.identity)
            if identity != done.identity or done.person == person.localpart:
                counted = person.pseudonym if done.person == person.localpart else done.person
                return replace(done, identity=identity, person=counted)
        return done

    def in_plan(self, plan: str) -> str:
        """The JSON text of a plan without any of them."""
        for person in list(self._people.values()):
            plan = person.in_plan(plan)
        return plan

    def _named_in(self, text: str) -> Iterable[Erased]:
        folded = text.lower()
        return [
            person for person in self._people.values() if any(name.lower() in folded for name in person.names)
        ]
