"""User names become localparts, as Synapse's password providers map them.

In comes a user name of a source; out goes the localpart of the account that Synapse would make for it
(Matrix specification, appendices, "Mapping from other character sets").
"""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[a-z0-9./+-][a-z0-9./+_-]*")
_KEPT = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-./+")
_SPELLING = tuple(
    chr(lower) if (lower := bytes([byte]).lower()[0]) in _KEPT else f"={byte:02x}" for byte in range(256)
)


def localpart_of(username: str) -> str:
    """The localpart for `username`: ASCII letters in lower case, other bytes of its UTF-8 form as `=xx`.

    Letters outside ASCII keep their case, as it is bytes that are put in lower case: `Ü` and `ü` differ.
    A leading `_` becomes `=5f`, for such names belong to application services. UnicodeEncodeError (a
    ValueError) for a lone surrogate.
    """
    if username.isascii() and _PLAIN.fullmatch(lower := username.lower()):
        return lower
    localpart = "".join([_SPELLING[byte] for byte in username.encode("utf-8")])
    return f"=5f{localpart[1:]}" if localpart.startswith("_") else localpart
