"""What tests do to a directory that is really there: add, change, rename and delete entries over LDAP."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ldap3 import (
    BASE,
    DEREF_NEVER,
    MODIFY_ADD,
    MODIFY_DELETE,
    MODIFY_REPLACE,
    NO_ATTRIBUTES,
    NONE,
    SUBTREE,
    Connection,
    Server,
)

Values = str | bytes | Sequence[str | bytes]


class Refused(Exception):
    """The server said no; the text has its reason."""


class Editor(ABC):
    """A directory server whose administrator is us. All methods raise Refused when the server says no."""

    @property
    @abstractmethod
    def edited_by(self) -> str:
        """The URI that changes go to."""

    @property
    @abstractmethod
    def admin_dn(self) -> str:
        """Who may do everything."""

    @property
    @abstractmethod
    def admin_password(self) -> str: ...

    @contextmanager
    def connection(self, user: str | None = None, password: str | None = None) -> Iterator[Connection]:
        """A bound connection of ldap3's; the administrator's unless somebody else is named."""
        connection = Connection(
            Server(self.edited_by, get_info=NONE, connect_timeout=10),
            user=user or self.admin_dn,
            password=password or self.admin_password,
            auto_referrals=False,
            receive_timeout=30,
            return_empty_attributes=False,
        )
        try:
            if not connection.bind():
                raise Refused(f"bind as {user or self.admin_dn}: {connection.result}")
            yield connection
        finally:
            connection.unbind()

    def add(self, dn: str, attributes: Mapping[str, Values]) -> str:
        """A new entry, `objectClass` among its attributes. Gives its DN."""
        with self.connection() as connection:
            connection.add(dn, attributes=_lists(attributes))
            _check(connection, f"add {dn}")
        return dn

    def delete(self, dn: str) -> None:
        """Deletes an entry that has none below it."""
        with self.connection() as connection:
            connection.delete(dn)
            _check(connection, f"delete {dn}")

    def set(self, dn: str, attribute: str, *values: str | bytes) -> None:
        """These values instead of all it had; no values remove the attribute."""
        self._modify(dn, attribute, MODIFY_REPLACE, values)

    def add_values(self, dn: str, attribute: str, *values: str | bytes) -> None:
        self._modify(dn, attribute, MODIFY_ADD, values)

    def remove_values(self, dn: str, attribute: str, *values: str | bytes) -> None:
        self._modify(dn, attribute, MODIFY_DELETE, values)

    def rename(self, dn: str, rdn: str, superior: str | None = None) -> str:
        """Renames an entry with all below it, and moves it below `superior` if one is named.

        Gives its new DN.
        """
        with self.connection() as connection:
            connection.modify_dn(dn, rdn, new_superior=superior)
            _check(connection, f"rename {dn}")
        return f"{rdn},{superior or parent_of(dn)}"

    def get(self, dn: str, *attributes: str) -> dict[str, list[bytes]]:
        """One entry's attributes with their raw values; all user attributes unless some are named."""
        found = self._search(dn, "(objectClass=*)", BASE, list(attributes) or ["*"])
        return found[dn] if dn in found else next(iter(found.values()))

    def find(self, base: str, query: str = "(objectClass=*)") -> list[str]:
        """The DNs of all entries that match, as the server spells them."""
        return list(self._search(base, query, SUBTREE, NO_ATTRIBUTES))

    def _search(
        self, base: str, query: str, scope: str, attributes: str | list[str]
    ) -> dict[str, dict[str, list[bytes]]]:
        found: dict[str, dict[str, list[bytes]]] = {}
        cookie: bytes | None = None
        with self.connection() as connection:
            while cookie != b"":
                connection.search(
                    base,
                    query,
                    search_scope=scope,
                    attributes=attributes,
                    dereference_aliases=DEREF_NEVER,
                    paged_size=500,
                    paged_cookie=cookie,
                )
                _check(connection, f"search {base} {query}")
                for entry in connection.response:
                    if entry["type"] == "searchResEntry":
                        found[entry["dn"]] = dict(entry["raw_attributes"])
                cookie = connection.result["controls"]["1.2.840.113556.1.4.319"]["value"]["cookie"]
        return found

    def _modify(self, dn: str, attribute: str, how: str, values: Sequence[str | bytes]) -> None:
        with self.connection() as connection:
            connection.modify(dn, {attribute: [(how, list(values))]})
            _check(connection, f"modify {dn}: {attribute}")


def parent_of(dn: str) -> str:
    """The DN without its first part."""
    return re.split(r"(?<!\\),", dn, maxsplit=1)[1]


def _lists(attributes: Mapping[str, Values]) -> dict[str, list[str | bytes]]:
    return {
        name: [value] if isinstance(value, str | bytes) else list(value) for name, value in attributes.items()
    }


def _check(connection: Connection, what: str) -> None:
    result = connection.result
    if result["result"] != 0:
        raise Refused(f"{what}: {result['description']} {result['message']}")
