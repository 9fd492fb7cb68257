"""`aim mail`: what a user types, and what it does. Sends nothing."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aim.cli.options import DEFAULT_CONFIG, ConfigFile
from aim.errors import AimError, ConfigError

if TYPE_CHECKING:
    from aim.config.root import Config
    from aim.directory.model import Directory, User
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
        str | None, typer.Argument(metavar="MXID", help="Whom it is about; not needed for held.")
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
    user = asyncio.run(_user(loaded.config, mxid)) if mxid else None
    letter = _letter(settings, _announcement(known, user, app.now(), loaded.config.soft_delete_period))
    if not letter.recipients:
        show.warn([f"nobody would get it: {_why_nobody(known)}"])
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


async def _user(config: Config, mxid: str) -> User:
    from aim import errands

    return find(await errands.read_directory(config), config.homeserver.server_name, mxid)


def find(directory: Directory, server_name: str, mxid: str) -> User:
    """The user whose MXID that is. Raises AimError if there is none."""
    found = next((user for user in directory.users if f"@{user.localpart}:{server_name}" == mxid), None)
    if found is None:
        raise AimError(
            f"{mxid} is nobody in the directory", "`aim directory` lists everybody; write @localpart:server"
        )
    return found


def _announcement(event: MailEvent, user: User | None, now: datetime, period: timedelta) -> Announcement:
    from aim.notify.mailer import sample_facts
    from aim.ports import Announcement, MailEvent

    facts = sample_facts(event, now, period)
    if event is MailEvent.HELD:
        return Announcement(event=event, key="preview", facts=facts)
    if user is None:
        raise AimError(f"the mail for {event} is about somebody", "name them: @localpart:server")
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


def _why_nobody(event: MailEvent) -> str:
    return "mailer.admins is empty" if event == "held" else "the directory has no usable address of theirs"


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
