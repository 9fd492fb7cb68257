"""`aim mail`: what a user types, and what it does. Sends nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aim.cli.options import DEFAULT_CONFIG, ConfigFile
from aim.errors import AimError, ConfigError

if TYPE_CHECKING:
    from aim.config.root import Config
    from aim.notify.settings import MailSettings
    from aim.ports import Announcement, Letter, MailEvent

mail = typer.Typer(
    help="Look at the mails that people get.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)


@mail.callback()
def _root() -> None:
    """Look at the mails that people get."""


@mail.command()
def preview(
    event: Annotated[
        str, typer.Argument(metavar="EVENT", help="registered, activated, deactivated or held.")
    ],
    mxid: Annotated[
        str | None,
        typer.Argument(metavar="MXID", help="Whom it is about, or their localpart; not needed for held."),
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write the files.")] = Path(),
) -> None:
    """Write a mail as it would be sent to somebody: EVENT.eml, EVENT.html and EVENT.txt. Sends nothing.

    Example: aim mail preview registered @mia.stone:example.com --out /tmp
    """
    import asyncio

    from aim import app
    from aim.cli import show
    from aim.config.load import load_config

    loaded = load_config(config, os.environ)
    show.warn(loaded.warnings)
    settings, known = _settings(loaded.config), _event(event)
    person = asyncio.run(_person(loaded.config, known, mxid)) if mxid else None
    letter = _letter(settings, _announcement(known, person, app.now(), loaded.config.soft_delete_period))
    if not letter.recipients:
        show.warn([f"nobody would get it: {_why_nobody(known, person)}"])
    for path in _write(letter, settings, app.now(), out):
        show.say(f"wrote {path}")


def _settings(config: Config) -> MailSettings:
    from aim.notify.settings import settings_of

    if config.mail is None:
        raise ConfigError(
            "no mailer is configured, so no mail is written",
            "add `mailer` with `from` and `transport` to the configuration; docs/mail.md has an example",
        )
    return settings_of(config.mail, config.homeserver.server_name)


def _event(name: str) -> MailEvent:
    from aim.ports import MailEvent

    try:
        return MailEvent(name)
    except ValueError:
        raise AimError(f"there is no mail for {name}", f"name one of {', '.join(MailEvent)}") from None


@dataclass(frozen=True, slots=True)
class _Person:
    """Whom a mail is about."""

    localpart: str
    display_name: str | None
    emails: Sequence[str]
    due_at: datetime | None = None
    """When their time is over, if they are on the queue."""
    left: bool = False
    """Whether they are not in the directory, but their account is remembered."""


async def _person(config: Config, event: MailEvent, name: str) -> _Person:
    """The user of that name, an MXID or a localpart; for `deactivated` also somebody who left.

    Raises AimError.
    """
    from aim import errands
    from aim.ports import MailEvent

    localpart = _localpart(name, config.homeserver.server_name)
    directory = await errands.read_directory(config)
    user = next((user for user in directory.users if user.localpart == localpart), None)
    if user is not None:
        return _Person(user.localpart, user.display_name, user.emails)
    if event is MailEvent.DEACTIVATED:
        account, queued = await errands.remembered(config, localpart)
        if account is not None:
            due_at = queued.due_at if queued is not None else None
            return _Person(localpart, account.display_name, account.emails or (), due_at, left=True)
        raise AimError(
            f"{name} is nobody in the directory, nor an account that is remembered",
            "`aim directory` and `aim queue list` have everybody",
        )
    raise AimError(f"{name} is nobody in the directory", "`aim directory` lists everybody")


def _localpart(name: str, server_name: str) -> str:
    """Of an MXID, or of a localpart itself. Raises AimError for a person of another homeserver."""
    if not name.startswith("@"):
        return name
    localpart, colon, server = name[1:].partition(":")
    if colon and server != server_name:
        raise AimError(f"{name} is of another homeserver", f"name somebody of {server_name}")
    return localpart


def _announcement(event: MailEvent, user: _Person | None, now: datetime, period: timedelta) -> Announcement:
    from aim.notify.mailer import sample_facts
    from aim.ports import Announcement, MailEvent

    facts = sample_facts(event, now, period)
    if event is MailEvent.HELD:
        return Announcement(event=event, key="preview", facts=facts)
    if user is None:
        raise AimError(f"the mail for {event} is about somebody", "name them: @localpart:server")
    if user.due_at is not None:
        facts = {**facts, "due_at": user.due_at}
    return Announcement(
        event=event,
        key="preview",
        localpart=user.localpart,
        display_name=user.display_name,
        emails=user.emails,
        facts=facts,
    )


def _letter(settings: MailSettings, announcement: Announcement) -> Letter:
    from aim.cli import show
    from aim.notify.mailer import Composer, check_templates

    show.warn(check_templates(settings))
    return Composer(settings).compose(announcement)


def _why_nobody(event: MailEvent, person: _Person | None) -> str:
    if event == "held":
        return "mailer.admins is empty"
    where = "what is remembered of their account" if person is not None and person.left else "the directory"
    return f"{where} has no usable address of theirs"


def _write(letter: Letter, settings: MailSettings, now: datetime, folder: Path) -> list[Path]:
    """Writes the files, for their owner alone. Raises AimError."""
    from aim.notify.message import message_of

    contents = {
        "eml": message_of(letter, settings.sender, now).as_bytes(),
        "html": letter.html.encode(),
        "txt": f"{letter.subject}\n\n{letter.text}".encode(),
    }
    paths = []
    for ending, content in contents.items():
        path = folder / f"{letter.event}.{ending}"
        try:
            _write_private(path, content)
        except OSError as error:
            raise AimError(
                f"{path} can't be written: {error.strerror}", "make the folder, or name another with --out"
            ) from error
        paths.append(path)
    return paths


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        # Before anything is written, and whoever could read a file that was there.
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, 0)
        file.write(content)
