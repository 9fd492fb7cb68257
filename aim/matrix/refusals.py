"""Says in our own words what the homeserver answered, and what to do about it.

Used by `transport`: a non-2xx answer goes in, a HomeserverError comes out. The codes are those of the
Client-Server API, Standard error response.
"""

from __future__ import annotations

from collections.abc import Mapping

from mautrix.errors import MatrixRequestError

from aim.errors import ConfigError, HomeserverRefused, HomeserverUnavailable

_LONGEST = 300

_REMEDIES: Mapping[str, str] = {
    "M_UNKNOWN_TOKEN": "install the appservice registration on the homeserver and restart it, and check that "
    "appservice.as_token and actor_token are the ones in it",
    "M_MISSING_TOKEN": "a proxy in front of the homeserver drops the Authorization header: let it pass",
    "M_EXCLUSIVE": "install the actor registration, whose user namespace covers everyone on the homeserver, "
    "and set appservice.actor_token",
    "M_UNRECOGNIZED": "check homeserver.url; if it is right, the homeserver is too old for this: update it",
    "M_TOO_LARGE": "an event may hold 64 KiB: give fewer people their own power level, or shorten the texts",
    "M_UNSUPPORTED_ROOM_VERSION": "choose a room_version that the homeserver supports",
    "M_USER_DEACTIVATED": "this account was deactivated on the homeserver",
}

_NOT_MATRIX = "check homeserver.url: what answers there is not a Matrix homeserver"


class AnswerError(MatrixRequestError):
    """A non-2xx answer, with all that matters of it. `data` is the decoded body, None if it is no JSON."""

    def __init__(self, status: int, data: object, headers: Mapping[str, str]) -> None:
        super().__init__(f"{status}")
        body: Mapping[object, object] = data if isinstance(data, dict) else {}
        code, message, after = body.get("errcode"), body.get("error"), body.get("retry_after_ms")
        self.http_status = status
        self.code = code if isinstance(code, str) else None
        self.text = one_line(message) if isinstance(message, str) else ""
        self.location = headers.get("Location") if 300 <= status < 400 else None
        self.retry_after = _seconds(after, 1000) if after is not None else None
        if self.retry_after is None:
            self.retry_after = _seconds(headers.get("Retry-After"), 1)

    @property
    def words(self) -> str:
        """`403 M_FORBIDDEN: You are not in the room`, as far as known."""
        return f"{self.http_status} {self.code or ''}".rstrip() + (f": {self.text}" if self.text else "")

    @property
    def may_not_act(self) -> bool:
        """True if the token may not act as that user at all. Synapse has one code for this and for a user who
        does not exist, and tells them apart by words alone."""
        return self.code == "M_EXCLUSIVE" or (self.http_status == 403 and "masquerade" in self.text)


def one_line(text: str) -> str:
    """What somebody else wrote, fit for one line of a terminal: no control characters, not endless."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"


def _seconds(value: object, per_second: int) -> float | None:
    """A wait that the homeserver asks for; None if it is no plain number (a date, say)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value) / per_second
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < float("inf") else None


def refused(request: str, answer: AnswerError, words: str, acting: str | None) -> HomeserverRefused:
    """The error for a permanent refusal of `request`, made while acting as `acting` (None: the bot)."""
    if answer.location is not None:
        message, remedy = (
            f"{request} was redirected to {one_line(answer.location)}",
            "put that into homeserver.url",
        )
    else:
        message, remedy = f"the homeserver refused {request}: {words}", _remedy(answer)
    if acting is not None:
        message += f" (acting as {acting})"
    # One code for all ways of saying it, so that callers need not know the words.
    code = "M_EXCLUSIVE" if answer.may_not_act else answer.code
    return HomeserverRefused(message, remedy, status=answer.http_status, errcode=code)


def _remedy(answer: AnswerError) -> str:
    if answer.may_not_act:
        return _REMEDIES["M_EXCLUSIVE"]
    if answer.code is None:
        return _REMEDIES["M_TOO_LARGE"] if answer.http_status == 413 else _NOT_MATRIX
    return _REMEDIES.get(answer.code, "")


def somebody_else(user: str, bot: str) -> ConfigError:
    """The error for an as_token that belongs to `user`, where the configuration says that we are `bot`."""
    return ConfigError(
        f"the as_token belongs to {user}, the configuration says {bot}",
        "take homeserver.server_name and appservice.sender_localpart from the homeserver's configuration",
    )


def unavailable(message: str, remedy: str, *, maybe_done: bool = False) -> HomeserverUnavailable:
    """The error for a failure that may pass."""
    return HomeserverUnavailable(message, remedy, maybe_done=maybe_done)
