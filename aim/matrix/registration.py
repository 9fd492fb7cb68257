"""Appservice registrations for the homeserver (Application Service API, Registration).

In: our tokens and names. Out: YAML files that only their owner may read. Two of them by default: the
*listener* is our bot and gets the events of rooms it is in; the *actor* may act as any user of the homeserver
and gets nothing. One registration that does both would get every event of every room.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aim.errors import AimError, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What goes into the registrations, as configured under `appservice` and `homeserver`."""

    id: str
    sender_localpart: str
    server_name: str
    as_token: str = field(repr=False)
    hs_token: str = field(repr=False)
    actor_token: str | None = field(default=None, repr=False)
    url: str | None = None
    """Where the homeserver reaches us; None: it sends us nothing."""


def registrations(tokens: Tokens, *, single: bool) -> Mapping[str, Mapping[str, object]]:
    """File name → content. Raises ConfigError if two are wanted and there is no `actor_token`."""
    if single:
        return {f"{tokens.id}.yaml": _registration(tokens, tokens.id, acts=True)}
    if tokens.actor_token is None:
        raise ConfigError(
            "appservice.actor_token is not set, so there can't be a registration that only acts",
            "set it to a random secret of its own, or use --single for one registration that does both",
        )
    listener = f"{tokens.id}-listener"
    return {
        f"{listener}.yaml": _registration(tokens, listener, acts=False),
        f"{tokens.id}-actor.yaml": {
            **_registration(tokens, f"{tokens.id}-actor", acts=True),
            "url": None,
            "as_token": tokens.actor_token,
            # Never used without a url, but the format asks for one.
            "hs_token": secrets.token_hex(32),
            "sender_localpart": f"{tokens.sender_localpart}-actor",
        },
    }


def _registration(tokens: Tokens, identity: str, *, acts: bool) -> dict[str, object]:
    everyone = {"exclusive": False, "regex": f"@.*:{re.escape(tokens.server_name)}"}
    return {
        "id": identity,
        "url": tokens.url,
        "as_token": tokens.as_token,
        "hs_token": tokens.hs_token,
        "sender_localpart": tokens.sender_localpart,
        "rate_limited": False,
        "namespaces": {"users": [everyone] if acts else [], "aliases": [], "rooms": []},
    }


def write(files: Mapping[str, Mapping[str, object]], directory: Path) -> list[Path]:
    """Writes the files with mode 0600. Raises AimError, and writes none, if one exists already."""
    from ruamel.yaml import YAML

    paths = [directory / name for name in files]
    for path in paths:
        if path.exists():
            raise AimError(f"{path} exists already", "move it away first: its tokens may be in use")
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    for path, content in zip(paths, files.values(), strict=True):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise AimError(
                f"{path} can't be written: {error.strerror}", "make the folder, or name another with --out"
            ) from error
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yaml.dump(dict(content), file)
    return paths
