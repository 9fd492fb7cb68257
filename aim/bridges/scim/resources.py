"""Users and groups: their schemas, and the ways between a SCIM resource, what is stored of it, and JSON.

The schemas are those of RFC 7643 with the enterprise extension, a little wider where providers are: an e-mail
address is any text (the special names that checkers refuse, such as `.local`, are in use), and a manager
needs no `$ref`. This module defines models of scim2_models, therefore it imports them; `core` uses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field, ValidationError
from scim2_models import (
    URN,
    AnyExtension,
    CaseExact,
    ComplexAttribute,
    Mutability,
    Path,
    Reference,
    Returned,
)
from scim2_models import EnterpriseUser as StandardEnterpriseUser
from scim2_models import Group as StandardGroup
from scim2_models import User as StandardUser
from scim2_models.resources.group import GroupMember as StandardGroupMember
from scim2_models.resources.user import Email as StandardEmail

from aim.bridges.scim.errors import invalid_value
from aim.bridges.scim.projection import WHOLE, Projection
from aim.directory.localpart import localpart_of
from aim.directory.people import MAX_LOCALPART
from aim.ports.scim import ScimKind, ScimMember, ScimResource

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"

SCHEMA = {ScimKind.USER: USER, ScimKind.GROUP: GROUP}
ENDPOINT = {ScimKind.USER: "Users", ScimKind.GROUP: "Groups"}


# -- the schemas ---------------------------------------------------------------------------------------------


class Email(StandardEmail):
    """Any text is an address here: what homeservers take is decided where it is set."""

    value: str | None = None
    """E-mail address of the user."""


class Manager(ComplexAttribute):
    """The enterprise extension's, of which clients give the id only."""

    value: Annotated[str | None, CaseExact.true] = None
    """The id of the user's manager."""
    ref: Annotated[Reference[StandardUser[Any]] | None, Mutability.read_only] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    """The address of the user's manager."""
    display_name: Annotated[str | None, Mutability.read_only] = None
    """The display name of the user's manager."""


class EnterpriseUser(StandardEnterpriseUser):
    __schema__ = URN(ENTERPRISE)

    manager: Manager | None = None  # type: ignore[assignment]  # wider than the library's
    """The user's manager."""


class User(StandardUser[AnyExtension]):
    __schema__ = URN(USER)

    emails: list[Email] | None = None  # type: ignore[assignment]  # wider than the library's
    """E-mail addresses of the user."""


class GroupMember(StandardGroupMember):
    """Who is a member has a name of their own, which a group can't change: it is shown to who asks for it."""

    display: Annotated[str | None, Mutability.read_only, Returned.request] = None
    """The member's name."""


class Group(StandardGroup):
    __schema__ = URN(GROUP)

    members: list[GroupMember] | None = None  # type: ignore[assignment]  # narrower than the library's
    """The members of the group."""


MODELS = (User, EnterpriseUser, Group)
USER_MODEL = User[EnterpriseUser]
MODEL: Mapping[ScimKind, type[Any]] = {ScimKind.USER: USER_MODEL, ScimKind.GROUP: Group}


# -- the localpart -------------------------------------------------------------------------------------------


class NoUsername(ValueError):
    """What no localpart can be made from; `remedy` says what can be written instead."""

    def __init__(self, message: str, remedy: str = "name one such as userName or externalId") -> None:
        super().__init__(message)
        self.remedy = remedy


class Username:
    """`attributeMapping.username`: which attribute of a user becomes the localpart."""

    def __init__(self, path: str) -> None:
        """`path` as in RFC 7644, 3.10; it may have an extension's URN, or a selection such as
        `emails[type eq "work"].value`. NoUsername if users have no such attribute, or it is no single
        text: of one that has parts, or several values, the path must say which."""
        try:
            parsed = Path[USER_MODEL](path)
            binding = parsed.resolve()
        except Exception as error:
            raise NoUsername(f"{path!r} is no attribute of a SCIM user") from error
        if binding is None:
            raise NoUsername(f"{path!r} is no attribute of a SCIM user")
        _refuse_whole(path, binding)
        self._path = parsed
        self._plain = self._plainly(path, binding)

    @staticmethod
    def _plainly(path: str, binding: Any) -> tuple[str, ...] | None:
        """The keys that lead there in a document, if the path is a plain one."""
        if "[" in path:
            return None
        names = [binding.model.model_fields[binding.field_name].serialization_alias]
        if binding.sub_field_name:
            names.append(binding.field_type.model_fields[binding.sub_field_name].serialization_alias)
        extension = (ENTERPRISE,) if issubclass(binding.model, StandardEnterpriseUser) else ()
        return (*extension, *names)

    def of(self, document: Mapping[str, object]) -> str | None:
        """The value in a user's document, or None; of several the primary one, else the first."""
        if self._plain is None:
            try:
                model = USER_MODEL.model_validate({"schemas": [USER, ENTERPRISE], **document})
            except ValidationError:
                # Whatever was stored, it must not keep all others from being called something.
                return None
            return _text(self._path.get(model))
        found: object = document
        for name in self._plain:
            found = _one(found)
            found = found.get(name) if isinstance(found, Mapping) else None
        return _text(found)

    def localpart(self, document: Mapping[str, object]) -> str | None:
        """The localpart, or None if there is none, or it would be too long for an account."""
        value = self.of(document)
        if not value:
            return None
        found = localpart_of(value)
        return found if len(found) <= MAX_LOCALPART else None


def _refuse_whole(path: str, binding: Any) -> None:
    """Raises NoUsername for what is more than one text."""
    if binding.sub_field_name:
        return
    parts = getattr(binding.field_type, "model_fields", {})
    if parts:
        # `value` where there is one; else as in `name.familyName`.
        text = next((name for name in ("value", "family_name") if name in parts), next(iter(parts)))
        instead = f"{path}.{parts[text].serialization_alias}"
        more = f', or one of them, such as {path}[type eq "work"].value' if _has_types(path, parts) else ""
        raise NoUsername(f"{path!r} has parts, and none of them is named", f"write {instead}{more}")
    if binding.is_multivalued:
        raise NoUsername(f"{path!r} is a list, and none of its values says whom it names")


def _has_types(path: str, parts: Mapping[str, object]) -> bool:
    """True where a selection by `type` could follow."""
    return "[" not in path and "type" in parts and "value" in parts


def _one(value: object) -> object:
    """Of several values the primary one, else the first."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    primary = (item for item in value if isinstance(item, Mapping) and item.get("primary") is True)
    return next(primary, next(iter(value), None))


def _text(value: object) -> str | None:
    found = _one(value)
    if isinstance(found, Mapping):
        found = found.get("value")
    return found.strip() or None if isinstance(found, str) else None


# -- between document and stored resource --------------------------------------------------------------------


def user_of(id_: str, document: Mapping[str, object], username: Username, version: int = 1) -> ScimResource:
    """What is stored of a user with this document, in the schema's spelling. ScimError without userName."""
    return ScimResource(
        kind=ScimKind.USER,
        id=id_,
        name=_required(document, "userName"),
        external_id=_optional(document, "externalId"),
        active=document.get("active") is not False,
        localpart=username.localpart(document),
        emails=tuple(_emails(document)),
        document=document,
        version=version,
    )


def group_of(id_: str, document: Mapping[str, object], version: int = 1) -> ScimResource:
    """The same of a group. ScimError without displayName."""
    return ScimResource(
        kind=ScimKind.GROUP,
        id=id_,
        name=_required(document, "displayName"),
        external_id=_optional(document, "externalId"),
        document=document,
        version=version,
    )


def _required(document: Mapping[str, object], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value.strip():
        raise invalid_value(f"{name} must be there, and not be empty")
    return value


def _optional(document: Mapping[str, object], name: str) -> str | None:
    value = document.get(name)
    return value or None if isinstance(value, str) else None


def _emails(document: Mapping[str, object]) -> Iterable[str]:
    listed = document.get("emails")
    for entry in listed if isinstance(listed, list) else ():
        value = entry.get("value") if isinstance(entry, Mapping) else None
        if isinstance(value, str) and value:
            yield value


# -- JSON ----------------------------------------------------------------------------------------------------


def etag(version: int) -> str:
    """The entity tag of a version (RFC 7644, 3.14)."""
    return f'W/"{version}"'


def location(base: str, kind: ScimKind, id_: str) -> str:
    """The address of a resource; `base` is that of the service as the client sees it."""
    return f"{base}/{ENDPOINT[kind]}/{id_}"


def render(
    resource: ScimResource,
    base: str,
    wanted: Projection = WHOLE,
    *,
    members: Sequence[ScimMember] = (),
    groups: Sequence[ScimMember] = (),
    named: bool = False,
) -> dict[str, object]:
    """The resource as JSON for a client; `members` are those of a group, `groups` those that a user is in.
    Members have their names if they are asked for, or if `named`."""
    schemas = [SCHEMA[resource.kind]]
    if ENTERPRISE in resource.document:
        schemas.append(ENTERPRISE)
    shown: dict[str, object] = {"schemas": schemas, "id": resource.id, **resource.document}
    if members:
        named = named or (wanted.only is not None and "members" in wanted.only)
        shown["members"] = list(_members(members, base, named=named))
    if groups:
        shown["groups"] = [{**group, "type": "direct"} for group in _members(groups, base, named=True)]
    shown["meta"] = _meta(resource, base)
    return shown if wanted.is_whole else wanted.apply(shown)


def _members(members: Iterable[ScimMember], base: str, *, named: bool) -> Iterator[dict[str, object]]:
    # What all of a kind share is made once: there may be ten thousand.
    users, groups = (location(base, kind, "") for kind in (ScimKind.USER, ScimKind.GROUP))
    user, group = ScimKind.USER.value, ScimKind.GROUP.value
    for member in members:
        is_user = member.kind is ScimKind.USER
        shown: dict[str, object] = {
            "value": member.id,
            "$ref": (users if is_user else groups) + member.id,
            "type": user if is_user else group,
        }
        if named:
            shown["display"] = member.name
        yield shown


def _meta(resource: ScimResource, base: str) -> dict[str, object]:
    meta: dict[str, object] = {"resourceType": resource.kind.value}
    if resource.created is not None:
        meta["created"] = _time(resource.created)
    if resource.modified is not None:
        meta["lastModified"] = _time(resource.modified)
    meta["location"] = location(base, resource.kind, resource.id)
    meta["version"] = etag(resource.version)
    return meta


def _time(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
