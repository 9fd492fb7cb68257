"""Tells people by mail: an announcement becomes a letter, and goes on the queue. The postman sends it.

In: an Announcement. Out: a Letter, rendered, in the LetterStore; nothing where nobody can be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from aim.errors import ConfigError
from aim.notify.links import APPS, deeplink, login_hint, qr_code
from aim.notify.message import message_id, usable
from aim.notify.settings import MailSettings
from aim.notify.templates import Rendered, Templates, one_line
from aim.ports import Announcement, Letter, LetterStore, MailEvent

_log = structlog.get_logger()


class Mailer:
    """Implements ports.Announcer."""

    def __init__(
        self,
        settings: MailSettings,
        letters: LetterStore,
        now: Callable[[], datetime],
        posted: Callable[[], None] = lambda: None,
    ) -> None:
        """`now` gives the time in UTC; `posted` is called when there is something to send.

        Raises ConfigError.
        """
        self._composer = Composer(settings)
        self._letters = letters
        self._now = now
        self._posted = posted

    async def announce(self, announcement: Announcement) -> None:
        """Queues a mail. Raises StoreError."""
        letter = self._composer.compose(announcement)
        if not letter.recipients:
            _log.debug("nobody to write to", mail=str(announcement.event))
            return
        await self._letters.post([letter], self._now())
        self._posted()


class Composer:
    """Writes letters."""

    def __init__(self, settings: MailSettings) -> None:
        """Raises ConfigError if there is no folder of templates where the settings say so."""
        self._settings = settings
        self._templates = Templates(settings.templates_path)

    def compose(self, announcement: Announcement) -> Letter:
        """The letter, with no recipients if nobody can be reached.

        A template of the organisation's own that fails on this one announcement is stood in for by ours.
        """
        variables = variables_of(announcement, self._settings)
        rendered = self._rendered(announcement.event, variables)
        return Letter(
            key=announcement.key,
            event=announcement.event,
            localpart=announcement.localpart,
            recipients=_recipients(announcement, self._settings),
            subject=rendered.subject,
            text=rendered.text,
            html=rendered.html,
            message_id=message_id(announcement.key, self._settings.sender_address),
        )

    def _rendered(self, event: MailEvent, variables: Mapping[str, object]) -> Rendered:
        try:
            return self._templates.render(event, variables)
        except ConfigError as error:
            _log.error("a template of a mail failed; ours is used", cause=error.message, remedy=error.remedy)
            return Templates().render(event, variables)


def variables_of(announcement: Announcement, settings: MailSettings) -> Mapping[str, object]:
    """What templates may use: all of it for each event, with None for what it does not have."""
    app = APPS[settings.app]
    mxid = f"@{announcement.localpart}:{settings.server_name}" if announcement.localpart else None
    hint = login_hint(settings.login_hint, mxid, announcement.emails) if mxid else None
    link = deeplink(app, settings.server_name, hint)
    facts = announcement.facts
    return {
        "event": str(announcement.event),
        "localpart": announcement.localpart,
        "mxid": mxid,
        "display_name": one_line(announcement.display_name or "") or announcement.localpart,
        "emails": tuple(announcement.emails),
        "server_name": settings.server_name,
        "app": app,
        "deeplink": link,
        "qr_code": qr_code(link),
        "web_url": settings.web_url,
        "due_at": facts.get("due_at"),
        "held": _lines(facts.get("held")),
        "digest": facts.get("digest"),
    }


def _lines(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _recipients(announcement: Announcement, settings: MailSettings) -> tuple[str, ...]:
    """Whom to write to, without addresses that can't be used, each once."""
    held = announcement.event is MailEvent.HELD
    found = filter(None, map(usable, settings.admins if held else announcement.emails))
    return tuple({address.casefold(): address for address in found}.values())


_SAMPLE_FACTS: Mapping[MailEvent, Mapping[str, object]] = {
    MailEvent.HELD: {
        "held": ("12 kicks in space company: above the limit of 3",),
        "digest": "sha256:0123456789abcdef",
    },
}


def sample_facts(event: MailEvent, now: datetime, period: timedelta) -> Mapping[str, object]:
    """Facts as an announcement of that event has them, for a check or a preview. `period` is the time that
    somebody who left may come back in."""
    if event is MailEvent.DEACTIVATED:
        return {"due_at": now + period}
    return _SAMPLE_FACTS.get(event, {})


def check_templates(settings: MailSettings) -> tuple[str, ...]:
    """Renders every mail once, with invented people. Gives warnings, a line each.

    Raises ConfigError, naming file and line, for the first template that can't be rendered.
    """
    templates = Templates(settings.templates_path)
    for event in MailEvent:
        facts = sample_facts(event, datetime(2000, 1, 1, tzinfo=UTC), timedelta(days=30))
        person = None if event is MailEvent.HELD else "mia.stone"
        sample = Announcement(
            event=event,
            key="sample",
            localpart=person,
            display_name=person and "Mia Stone",
            emails=("mia.stone@example.com",) if person else (),
            facts=facts,
        )
        templates.render(event, variables_of(sample, settings))
    return tuple(
        f"mailer.templates_path: {path} is not used: templates are in Jinja2, named as docs/mail.md says"
        for path in templates.foreign()
    )
