"""Templates of mails: found, checked, rendered (Jinja2, in its sandbox).

In: an event and the variables of `docs/mail.md`. Out: subject, text and HTML. Each file is looked for in the
organisation's own folder first, then in ours. What is wrong with one is a ConfigError naming file and line.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aim.errors import ConfigError
from aim.ports import MailEvent

FILES = ("subject.txt", "text.txt", "html.html")
"""What an event's folder has."""
_REMEDY = "mend it, or take it away: then the one that comes with aim is used; docs/mail.md has the variables"


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a mail says."""

    subject: str
    """One line."""
    text: str
    html: str


class Templates:
    """The templates of all events."""

    def __init__(self, own: Path | None = None) -> None:
        """`own` is the organisation's folder, whose files go before ours.

        Raises ConfigError if it is no folder.
        """
        if own is not None and not own.is_dir():
            raise ConfigError(
                f"mailer.templates_path {own} is no folder that can be read",
                "make it, or leave the key out: then the templates that come with aim are used",
            )
        self._folders = [folder.resolve() for folder in (own, shipped()) if folder is not None]
        self._environment = ImmutableSandboxedEnvironment(
            loader=FileSystemLoader(self._folders),
            autoescape=lambda name: name is not None and name.endswith(".html"),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._environment.filters |= {"day": _day, "moment": _moment}

    def render(self, event: MailEvent, variables: Mapping[str, object]) -> Rendered:
        """Raises ConfigError."""
        subject, text, html = (self._render(f"{event}/{name}", variables) for name in FILES)
        subject = one_line(subject)
        if not subject:
            raise ConfigError(f"{self._place(f'{event}/{FILES[0]}')}: the subject is empty", _REMEDY)
        return Rendered(subject, text, html)

    def _render(self, name: str, variables: Mapping[str, object]) -> str:
        try:
            return self._environment.get_template(name).render(variables)
        except TemplateSyntaxError as error:
            place = f"{error.filename or self._place(name)}:{error.lineno}"
            raise ConfigError(f"{place}: {_said(error)}", _REMEDY) from error
        except Exception as error:
            raise ConfigError(f"{self._place(name, error)}: {_said(error)}", _REMEDY) from error

    def _place(self, name: str, error: Exception | None = None) -> Path | str:
        """Where a template is, and with an error that came out of one, the line."""
        for frame in reversed(traceback.extract_tb(error.__traceback__) if error else []):
            # Jinja makes frames of the lines of the templates.
            if any(Path(frame.filename).is_relative_to(folder) for folder in self._folders):
                return f"{frame.filename}:{frame.lineno}"
        found = (folder / name for folder in self._folders)
        return next((path for path in found if path.exists()), name)

    def foreign(self) -> Iterator[Path]:
        """Files in the organisation's folder in Pug, the language of another product's templates."""
        for folder in self._folders[:-1]:
            yield from sorted(folder.glob("*/*.pug"))


def shipped() -> Path:
    """The folder of the templates that come with `aim`: within the package, or in a checkout beside it."""
    package = Path(str(files("aim")))
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


def one_line(text: str) -> str:
    """`text` without line ends and control characters, so that it can stand in a header (RFC 5322, 2.2)."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _said(error: Exception) -> str:
    """What is wrong, without values, which may be about a person."""
    if isinstance(error, TemplateError) and error.message:
        return one_line(error.message)
    return f"can't be rendered ({type(error).__name__})"


def _day(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d}"


def _moment(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
