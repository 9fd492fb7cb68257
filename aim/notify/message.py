"""A letter becomes what goes over the wire: MIME (RFC 2045), with the pictures of its HTML as parts of it.

In: a Letter, the sender, the time. Out: the message; its bytes are ASCII whatever the text says. Pure.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from hashlib import sha256

from aim.config.server import MAIL_ADDRESS
from aim.ports import Letter

_PICTURE = re.compile(r"data:image/(png|jpeg|gif);base64,([A-Za-z0-9+/]+=*)")
_POLICY = policy.SMTP.clone(cte_type="7bit")
"""No server has to understand 8BITMIME."""
_LONGEST = 254
"""RFC 5321, 4.5.3.1.3, erratum 1690."""


def usable(address: str) -> str | None:
    """An address as it can be written to, with its domain in ASCII; None if there is no writing to it.

    Nothing that comes out could end a command or a header.
    """
    if not MAIL_ADDRESS.fullmatch(address) or not address.isprintable():
        return None
    localpart, _, domain = address.rpartition("@")
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    found = f"{localpart}@{domain}"
    return found if len(found) <= _LONGEST else None


def message_id(key: str, sender_address: str) -> str:
    """Always the same for the same key: whoever gets it twice after all can tell."""
    return f"<{sha256(key.encode()).hexdigest()[:40]}@{sender_address.rpartition('@')[2]}>"


def message_of(letter: Letter, sender: str, now: datetime) -> EmailMessage:
    """The message. `sender` is an address, with or without a name; `now` is in UTC."""
    is_ascii = all(recipient.isascii() for recipient in letter.recipients)
    # RFC 6532: only where an address can't be written otherwise.
    mail = EmailMessage(policy=_POLICY if is_ascii else _POLICY.clone(utf8=True))
    mail["From"] = sender
    if letter.recipients:
        mail["To"] = ", ".join(letter.recipients)
    mail["Subject"] = letter.subject
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = letter.message_id
    # RFC 3834: nobody's absence note is to answer.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(letter.text)
    html, pictures = _apart(letter.html)
    mail.add_alternative(html, subtype="html")
    part = list(mail.iter_parts())[-1]
    assert isinstance(part, EmailMessage)
    for content_id, (kind, picture) in pictures.items():
        name = f"{content_id.partition('@')[0]}.{kind}"
        part.add_related(picture, "image", kind, cid=f"<{content_id}>", filename=name, disposition="inline")
    return mail


def _apart(html: str) -> tuple[str, Mapping[str, tuple[str, bytes]]]:
    """`html` with `cid:` (RFC 2392) for each picture in it, and those: content id → kind, bytes.

    Many mail programs show no `data:` URI.
    """
    pictures: dict[str, tuple[str, bytes]] = {}

    def take(match: re.Match[str]) -> str:
        picture = base64.b64decode(match[2])
        content_id = f"{sha256(picture).hexdigest()[:16]}@aim"
        pictures[content_id] = (match[1], picture)
        return f"cid:{content_id}"

    return _PICTURE.sub(take, html), pictures
