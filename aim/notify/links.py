"""The apps that a welcome mail leads to: where to get them, the link that opens them, its QR code. Pure.

In: an app's name, the homeserver, the person. Out: URLs, and a picture as a `data:` URI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import segno

from aim.notify.settings import LoginHint

_BASE = "https://mobile.element.io/"
_QR_SCALE = 6
"""Pixels to a module: sharp on a screen, and no larger than a hand."""


@dataclass(frozen=True, slots=True)
class App:
    """A mobile app."""

    name: str
    path: str
    """What names it in the link that opens it."""
    ios: str
    """Where to get it."""
    android: str


APPS: Mapping[str, App] = {
    "element-pro": App(
        name="Element Pro",
        path="element-pro/",
        ios="https://apps.apple.com/app/element-pro-for-work/id6502951615",
        android="https://play.google.com/store/apps/details?id=io.element.enterprise",
    ),
    "element-x": App(
        name="Element X",
        path="element/",
        ios="https://apps.apple.com/ee/app/element-x-secure-chat-call/id1631335820",
        android="https://play.google.com/store/apps/details?id=io.element.android.x",
    ),
    "element-classic": App(
        name="Element Classic",
        path="",
        ios="https://apps.apple.com/app/element-messenger/id1083446067",
        android="https://play.google.com/store/apps/details?id=im.vector.app",
    ),
}
"""By the names that `mailer.app` takes."""


def login_hint(kind: LoginHint, mxid: str, emails: Sequence[str]) -> str | None:
    """What the login form is to be filled with; None for nothing.

    `auto` is the form that the Matrix Authentication Service understands where it checks passwords itself
    (a Synapse without it ignores the hint). An identity provider behind it mostly wants the e-mail address.
    """
    match kind:
        case "none":
            return None
        case "email":
            return emails[0] if emails else None
        case "auto" | "mxid":
            return f"mxid:{mxid}"


def deeplink(app: App, server_name: str, hint: str | None) -> str:
    """The link that opens the app with the homeserver, and the login form, filled in."""
    query = {"account_provider": server_name} | ({"login_hint": hint} if hint else {})
    # RFC 3986, 3.4: both characters may stand in a query, and the apps' makers write them so.
    return f"{_BASE}{app.path}?{urlencode(query, quote_via=quote, safe=':@')}"


def qr_code(text: str) -> str:
    """The QR code of a text: a PNG as a `data:` URI."""
    code = segno.make_qr(text, error="m")
    uri: str = code.png_data_uri(scale=_QR_SCALE)
    return uri
