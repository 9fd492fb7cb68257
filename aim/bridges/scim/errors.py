"""What a SCIM client is told when it doesn't get what it asked for.

Raised anywhere in this package, answered by `server`. Knows no library.
"""

from __future__ import annotations

from collections.abc import Mapping

ERROR_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:Error"
_RETRY_AFTER = "30"
"""Seconds."""


class ScimError(Exception):
    """An answer that is an error (RFC 7644, 3.12): HTTP status, keyword (or none) and a text for a person.

    `headers` go with the answer.
    """

    def __init__(
        self, status: int, detail: str, scim_type: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.scim_type = scim_type
        self.headers = dict(headers or {})

    def body(self) -> dict[str, object]:
        """The JSON object that tells of it."""
        said: dict[str, object] = {"schemas": [ERROR_SCHEMA], "status": str(self.status)}
        if self.scim_type:
            said["scimType"] = self.scim_type
        return {**said, "detail": self.detail}


def invalid_value(detail: str) -> ScimError:
    return ScimError(400, detail, "invalidValue")


def invalid_syntax(detail: str) -> ScimError:
    return ScimError(400, detail, "invalidSyntax")


def too_many(detail: str) -> ScimError:
    return ScimError(400, detail, "tooMany")


def mutability(detail: str) -> ScimError:
    return ScimError(400, detail, "mutability")


def no_target(detail: str) -> ScimError:
    return ScimError(400, detail, "noTarget")


def not_found(detail: str) -> ScimError:
    return ScimError(404, detail)


def taken() -> ScimError:
    return ScimError(409, "this userName is taken by another user", "uniqueness")


def away() -> ScimError:
    """The database or the homeserver does not answer: the log says which."""
    return ScimError(503, "this can't be done now; try again", headers={"Retry-After": _RETRY_AFTER})
