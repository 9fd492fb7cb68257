"""Matrix user ids: `@localpart:server.name` (Appendices, User Identifiers). Pure; used all over `matrix`."""

from __future__ import annotations


def split(mxid: str) -> tuple[str, str] | None:
    """Localpart and server name, or None if it is no user id.

    At the first colon: a localpart can't hold one, a server name can (`localhost:8448`, `[::1]`).
    """
    localpart, colon, server = mxid[1:].partition(":")
    if not mxid.startswith("@") or not colon or not localpart or not server:
        return None
    return localpart, server


def make(localpart: str, server_name: str) -> str:
    """The user id of a local user."""
    return f"@{localpart}:{server_name}"
