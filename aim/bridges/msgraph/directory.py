"""What Graph told becomes a Directory. Pure.

In comes the state, out go people and groups as `directory.listed` takes them.

- External ids are object ids; a group's displayName and mailNickname name it too.
- Guests are not there unless they are wanted. A guest's principal name is `ann_example.org#EXT#@tenant`: what
  is before `#EXT#` counts.
- With a list of groups only their members are there, disabled ones included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from aim.bridges.msgraph.settings import GraphSettings
from aim.directory.listed import Container, Listed
from aim.directory.localpart import localpart_of
from aim.directory.model import User
from aim.directory.people import MAX_LOCALPART, emails_of
from aim.errors import SourceInvalid
from aim.ports.graph import GraphState, GraphUser

_GUEST = "#ext#"
_GUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def key_of(external_id: str) -> str:
    """The comparison key of an external id: object ids in lower case, names as they are."""
    return external_id.lower() if _GUID.fullmatch(external_id) else external_id


def people_of(state: GraphState, settings: GraphSettings, groups: Sequence[Container]) -> Iterator[Listed]:
    """Everybody who counts, in no order. `groups` are those of `groups_of`."""
    chosen = {id_ for group in groups for id_ in group.members} if settings.groups else None
    for user in state.users.values():
        if (chosen is None or user.id in chosen) and (settings.include_guests or not is_guest(user)):
            yield _listed(user, settings.localpart)


def groups_of(state: GraphState, settings: GraphSettings) -> list[Container]:
    """All groups; or those that the configuration names, and those in them. Raises SourceInvalid for one that
    is named and not there: nobody may go because of it."""
    wanted = set(state.groups) if not settings.groups else _reached(state, settings)
    return [
        Container(
            group.id, group.name or group.nickname or group.id, (group.nickname,), state.members.get(id_, ())
        )
        for id_, group in state.groups.items()
        if id_ in wanted
    ]


def is_guest(user: GraphUser) -> bool:
    """By `userType`; by the principal name where Graph does not tell it."""
    if user.user_type is not None:
        return user.user_type.lower() == "guest"
    return _GUEST in (user.principal_name or "").lower()


def username_of(value: str) -> str:
    """What the localpart is made of: of an address what is before the @, of a guest's before #EXT#."""
    local = value.partition("@")[0]
    marked = local.lower().rfind(_GUEST)
    return local if marked < 0 else local[:marked]


def _reached(state: GraphState, settings: GraphSettings) -> set[str]:
    roots = {id_.lower() for id_ in settings.groups}
    if missing := sorted(roots - state.groups.keys()):
        raise SourceInvalid(
            f"source.groups names {', '.join(missing)}, and there is no such group in Microsoft Graph",
            "write the object ids of groups there; take those out that were deleted",
        )
    found, waiting = set(roots), list(roots)
    while waiting and settings.transitive:
        inside = state.members.get(waiting.pop(), {})
        new = [id_ for id_ in inside if id_ in state.groups and id_ not in found]
        found.update(new)
        waiting += new
    return found


def _listed(user: GraphUser, attribute: str) -> Listed:
    name = user.principal_name or user.id
    username = username_of(user.username or "")
    if not username:
        return Listed(user.id, name, None, f"has no value of {attribute} that could be a localpart: skipped")
    localpart = localpart_of(username)
    if len(localpart) > MAX_LOCALPART:
        return Listed(
            user.id, name, None, f"its {attribute} gives a localpart of {len(localpart)} characters: skipped"
        )
    display_name = (user.display_name or "").strip() or None
    made = User(
        id=user.id,
        uid=user.username or username,
        localpart=localpart,
        display_name=display_name,
        emails=emails_of([user.mail] if user.mail else ()),
        active=user.enabled is not False,
    )
    return Listed(user.id, name, made)
