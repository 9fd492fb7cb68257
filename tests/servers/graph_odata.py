"""What may be asked of users and groups in Microsoft Graph, for its stand-in: OData's `$select`, `$filter`.

It is stricter than Graph where that finds mistakes: what isn't understood here is refused, never ignored.
Sources: "Use query parameters", "Use the $filter query parameter" and "Advanced query capabilities on
directory objects" in the documentation of Microsoft Graph.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from tests.servers.graph_tenant import GROUPS, USERS, Properties, list_of


class Refusal(Exception):
    """An answer of Graph that is an error."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def bad_request(message: str, code: str = "BadRequest") -> Refusal:
    return Refusal(400, code, message)


def unsupported(message: str) -> Refusal:
    return Refusal(400, "Request_UnsupportedQuery", message)


DEFAULTS: Mapping[str, Sequence[str]] = {
    USERS: """businessPhones displayName givenName jobTitle mail mobilePhone officeLocation preferredLanguage
        surname userPrincipalName""".split(),
    GROUPS: """classification createdDateTime deletedDateTime description displayName groupTypes mail
        mailEnabled mailNickname onPremisesLastSyncDateTime onPremisesSamAccountName
        onPremisesSecurityIdentifier onPremisesSyncEnabled proxyAddresses securityEnabled
        securityIdentifier visibility""".split(),
}
"""What is given where nothing was selected."""

_KNOWN: Mapping[str, frozenset[str]] = {
    USERS: frozenset(DEFAULTS[USERS])
    | frozenset(
        """id accountEnabled ageGroup city companyName country createdDateTime creationType deletedDateTime
        department employeeHireDate employeeId employeeType externalUserState faxNumber imAddresses
        mailNickname onPremisesDistinguishedName onPremisesDomainName onPremisesExtensionAttributes
        onPremisesImmutableId onPremisesLastSyncDateTime onPremisesSamAccountName onPremisesSecurityIdentifier
        onPremisesSyncEnabled onPremisesUserPrincipalName otherMails postalCode preferredDataLocation
        proxyAddresses state streetAddress usageLocation userType""".split()
    ),
    GROUPS: frozenset(DEFAULTS[GROUPS])
    | frozenset("id expirationDateTime isAssignableToRole membershipRule renewedDateTime uniqueName".split()),
}
_EXTENSION = re.compile(r"extension_[0-9a-f]{32}_\w+")
_TYPES = {USERS: "microsoft.graph.user", GROUPS: "microsoft.graph.group"}
_NEEDS_ADVANCED = frozenset({"companyName", "onPremisesSamAccountName", "onPremisesDistinguishedName"})
_NO_FILTER = frozenset({"onPremisesExtensionAttributes", "description", "onPremisesDomainName"})


def is_known(collection: str, name: str) -> bool:
    return name in _KNOWN[collection] or _EXTENSION.fullmatch(name) is not None


def selected(
    text: str | None, collections: Sequence[str], relations: Sequence[str] = ()
) -> tuple[str, ...] | None:
    """The names in `$select`; None if it isn't there. A name must be a property in one of the collections, or
    one of the relations. A path into a complex property (`a/b`) can't be selected. Raises Refusal."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in relations and not any(is_known(each, name) for each in collections):
            raise bad_request(
                "Parsing OData Select and Expand failed: Could not find a property named "
                f"'{name}' on type '{_TYPES[collections[0]]}'."
            )
    return names


def same_ids(text: str, limit: int = 50) -> frozenset[str]:
    """The ids of a filter `id eq '…' or id eq '…'`, the only one that delta queries have. Raises Refusal."""
    parts = re.split(r"\s+or\s+", text.strip())
    found = [re.fullmatch(r"id\s+eq\s+'?([0-9a-fA-F-]{36})'?", part.strip()) for part in parts]
    ids = frozenset(match.group(1).lower() for match in found if match)
    if not all(found):
        raise unsupported("Unsupported Query: a delta query is filtered by id only.")
    if len(parts) > limit:
        raise unsupported(f"Too many objects in the filter: {len(parts)}, {limit} are allowed.")
    return ids


Test = Callable[[Properties], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<word>[A-Za-z0-9_][\w./+:-]*?(?=[\s(),:]|$))|(?P<sign>[(),:]))"
)
_LITERALS: Mapping[str, object] = {"null": None, "true": True, "false": False}


def condition_of(text: str, collection: str, *, advanced: bool) -> Test:
    """A `$filter`: `eq ne startsWith endsWith in and or not`, and `any` with `eq` or `startsWith` over lists.
    Strings are compared without case. Raises Refusal."""
    return _Filter(text, collection, advanced).whole()


class _Filter:
    """A parser that goes down; each method takes what it understands and leaves the rest."""

    def __init__(self, text: str, collection: str, advanced: bool) -> None:
        self._collection = collection
        self._advanced = advanced
        self._tokens: list[str] = []
        place, text = 0, text.rstrip()
        while place < len(text):
            found = _TOKEN.match(text, place)
            if not found:
                raise self._invalid(text[place:])
            self._tokens.append(found.group("text") or found.group("word") or found.group("sign"))
            place = found.end()

    def whole(self) -> Test:
        test = self._any_of()
        if self._tokens:
            raise self._invalid(self._tokens[0])
        return test

    @staticmethod
    def _invalid(near: str) -> Refusal:
        return bad_request(f"Invalid filter clause: syntax error near '{near}'.")

    def _next(self) -> str:
        if not self._tokens:
            raise self._invalid("end")
        return self._tokens.pop(0)

    def _is_next(self, word: str) -> bool:
        if self._tokens and self._tokens[0].casefold() == word:
            self._tokens.pop(0)
            return True
        return False

    def _expect(self, sign: str) -> None:
        found = self._next()
        if found != sign:
            raise self._invalid(found)

    def _any_of(self) -> Test:
        tests = [self._all_of()]
        while self._is_next("or"):
            tests.append(self._all_of())
        return tests[0] if len(tests) == 1 else lambda item: any(test(item) for test in tests)

    def _all_of(self) -> Test:
        tests = [self._one()]
        while self._is_next("and"):
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda item: all(test(item) for test in tests)

    def _one(self) -> Test:
        if self._is_next("not"):
            self._need_advanced("not")
            test = self._one()
            return lambda item: not test(item)
        if self._is_next("("):
            test = self._any_of()
            self._expect(")")
            return test
        word = self._next()
        if word.casefold() in {"startswith", "endswith"}:
            return self._function(word.casefold())
        if word.endswith("/any"):
            return self._any_item(word.removesuffix("/any"))
        return self._comparison(self._property(word))

    def _function(self, name: str) -> Test:
        if name == "endswith":
            self._need_advanced("endsWith")
        self._expect("(")
        word = self._property(self._next())
        self._expect(",")
        wanted = self._literal()
        self._expect(")")
        return lambda item: _matches(name, _value(item, word), wanted)

    def _any_item(self, word: str) -> Test:
        """`name/any(x:x eq '…')` and `name/any(x:startswith(x,'…'))`."""
        name = self._property(word)
        self._expect("(")
        variable = self._next()
        self._expect(":")
        how = self._next()
        if how.casefold() == "startswith":
            self._expect("(")
            self._expect(variable)
            self._expect(",")
            wanted = self._literal()
            self._expect(")")
            how = "startswith"
        elif how == variable:
            how = self._next().casefold()
            if how != "eq":
                raise self._invalid(how)
            wanted = self._literal()
        else:
            raise self._invalid(how)
        self._expect(")")
        return lambda item: any(_matches(how, each, wanted) for each in list_of(_value(item, name)))

    def _comparison(self, name: str) -> Test:
        how = self._next().casefold()
        if how == "in":
            self._expect("(")
            wanted = [self._literal()]
            while self._is_next(","):
                wanted.append(self._literal())
            self._expect(")")
            return lambda item: any(_matches("eq", _value(item, name), each) for each in wanted)
        if how not in {"eq", "ne"}:
            raise unsupported(f"Unsupported operator '{how}' for property '{name}'.")
        value = self._literal()
        if how == "ne" or value is None:
            self._need_advanced(how)
        return lambda item: _matches("eq", _value(item, name), value) is (how == "eq")

    def _literal(self) -> object:
        word = self._next()
        if word.startswith("'"):
            return word[1:-1].replace("''", "'")
        if word in _LITERALS:
            return _LITERALS[word]
        raise self._invalid(word)

    def _property(self, word: str) -> str:
        top, _, below = word.partition("/")
        if not is_known(self._collection, top):
            type_name = _TYPES[self._collection]
            raise bad_request(
                f"Invalid filter clause: Could not find a property named '{word}' on type '{type_name}'."
            )
        if below and top != "onPremisesExtensionAttributes":
            raise bad_request(f"Invalid filter clause: '{word}'.")
        if below or top in _NEEDS_ADVANCED:
            self._need_advanced(word)
        elif top in _NO_FILTER:
            raise unsupported(f"Unsupported or invalid query filter clause specified for property '{word}'.")
        return word

    def _need_advanced(self, what: str) -> None:
        if not self._advanced:
            raise unsupported(
                f"'{what}' is supported only with the header ConsistencyLevel:eventual and $count=true."
            )


def _value(item: Properties, path: str) -> object:
    top, _, below = path.partition("/")
    value = item.get(top)
    if below:
        return value.get(below) if isinstance(value, Mapping) else None
    return value


def _matches(how: str, value: object, wanted: object) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        value, wanted = value.casefold(), wanted.casefold()
        if how == "startswith":
            return value.startswith(wanted)
        if how == "endswith":
            return value.endswith(wanted)
    return how == "eq" and value == wanted and isinstance(value, type(wanted))
