"""`aim`: the commands and their options. What each does is in `commands`; here is only what a user types."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from aim import __version__
from aim.cli import queue, scim
from aim.cli.mail import mail as mail_commands
from aim.cli.options import DEFAULT_CONFIG, ConfigFile, Json, Yes

app = typer.Typer(
    name="aim",
    help="Makes a Matrix server follow a directory: spaces, rooms, memberships and power levels.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(mail_commands, name="mail")

app.add_typer(queue.app)
app.add_typer(scim.app)
_INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aim {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None and not version:
        typer.echo(context.get_help())


@app.command()
def plan(
    config: ConfigFile = DEFAULT_CONFIG,
    json: Json = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the plan, for apply and approve.")
    ] = None,
    detailed_exitcode: Annotated[bool, typer.Option(help="Exit with 2 if there are changes.")] = False,
    unfold: Annotated[bool, typer.Option(help="A line for each action, however many.")] = False,
    fresh: Annotated[
        bool, typer.Option(help="Read the homeserver, and not what a running daemon knows of it.")
    ] = False,
) -> None:
    """Print what a cycle would change, and why. Changes nothing anywhere.

    Example: aim plan --out friday.json
    """
    from aim.cli import commands

    _exit(
        commands.plan(
            config,
            json=json,
            out=out,
            detailed_exitcode=detailed_exitcode,
            unfold=unfold,
            fresh=fresh,
        )
    )


@app.command()
def apply(
    config: ConfigFile = DEFAULT_CONFIG,
    yes: Yes = False,
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Do exactly this saved plan, or nothing.")
    ] = None,
    detailed_exitcode: Annotated[bool, typer.Option(help="Exit with 2 if there were changes.")] = False,
    unfold: Annotated[bool, typer.Option(help="A line for each action, however many.")] = False,
) -> None:
    """Run one cycle: show the plan, ask, carry it out.

    Example: aim apply --plan friday.json --yes
    """
    from aim.cli import commands

    _exit(commands.apply(config, yes=yes, plan=plan, detailed_exitcode=detailed_exitcode, unfold=unfold))


@app.command()
def run(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run the daemon: a cycle whenever the source changes. Ends cleanly on SIGTERM.

    Example: aim run --config /etc/aim/config.yaml
    """
    from aim.cli import commands

    _exit(commands.run(config))


@app.command()
def registration(
    config: ConfigFile = DEFAULT_CONFIG,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write the files.")] = Path(),
    single: Annotated[bool, typer.Option(help="One registration that listens and acts.")] = False,
    url: Annotated[
        str | None, typer.Option(help="Where the homeserver reaches us. Left out: it sends nothing.")
    ] = None,
) -> None:
    """Write the appservice registrations for the homeserver (mode 0600, never over an existing file).

    Example: aim registration --out /etc/matrix-synapse
    """
    from aim.cli import commands

    _exit(commands.registration(config, out=out, single=single, url=url))


@app.command()
def check(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Test config, source, homeserver, privileges and database for real; a line each, with the remedy.

    Example: aim check
    """
    from aim.cli import commands

    _exit(commands.check(config))


@app.command()
def directory(
    config: ConfigFile = DEFAULT_CONFIG,
    json: Json = False,
    ldif: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what was read as LDIF, for a preview elsewhere."),
    ] = None,
    redact: Annotated[bool, typer.Option(help="With --ldif: replace names, consistently.")] = False,
) -> None:
    """Print the flattened directory as the bridge sees it.

    Example: aim directory --json
    """
    from aim.cli import commands

    _exit(commands.directory(config, json=json, ldif=ldif, redact=redact))


@app.command()
def explain(
    about: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MXID] [ROOM]", help="A person, a room (key, id or name), or both."),
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    user: Annotated[
        str | None, typer.Option(metavar="LOCALPART", help="The person, without @ and server.")
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="All people of the room, however many.")] = False,
    json: Json = False,
) -> None:
    """Say why somebody is, or is not, in a space or room, with that power level. Changes nothing.

    Example: aim explain @evan:example.com engineering
    """
    from aim.cli import commands

    _exit(commands.explain(config, about or [], user=user, everybody=everybody, json=json))


@app.command()
def approve(
    digest: Annotated[str, typer.Argument(help="Digest of the plan, as `aim plan` prints it.")],
    config: ConfigFile = DEFAULT_CONFIG,
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="The saved plan that is meant.")] = None,
    by: Annotated[str | None, typer.Option(help="Who approves. Left out: the user of this session.")] = None,
) -> None:
    """Let the held actions of that plan go, for 24 hours.

    Example: aim approve sha256:5f0c…
    """
    from aim.cli import commands

    _exit(commands.approve(config, digest, plan=plan, by=by))


@app.command()
def rebind(
    old: Annotated[str | None, typer.Argument(help="The id or MXID known before.")] = None,
    new: Annotated[str | None, typer.Argument(help="The id or MXID in the directory now.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    by_localpart: Annotated[
        bool, typer.Option("--by-localpart", help="After a switch of source: everybody, by their localpart.")
    ] = False,
    yes: Yes = False,
    even_missing: Annotated[
        bool, typer.Option("--even-missing", help="With --by-localpart: however many are missing there.")
    ] = False,
) -> None:
    """Say that a user with a new id or a new localpart is the same person as before.

    Example: aim rebind @mia.stone:example.com @mia.berg:example.com
    """
    from aim.cli import commands

    if by_localpart:
        _exit(commands.rebind_all(config, [old, new], yes=yes, even_missing=even_missing))
    _exit(commands.rebind(config, old, new))


@app.command()
def demo(
    keep: Annotated[bool, typer.Option(help="Leave it running, and print how to look around.")] = False,
) -> None:
    """Set up a whole organisation on a real homeserver on this machine, and show the main job on it.

    Example: aim demo --keep
    """
    from aim.cli import commands

    _exit(commands.demo(keep=keep))


def _exit(code: int) -> None:
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the console script."""
    from aim.errors import AimError

    interrupted = "interrupted", "what was done is recorded; run the command again to go on"
    try:
        # Not left to typer: it ends with code 2 for a mistyped option, and that says that there are changes.
        code = app(standalone_mode=False)
    except AimError as error:
        code = _failed(error.message, error.remedy)
    except typer.TyperException as error:
        code = _failed(error.format_message(), "see `aim --help`, or the help of the command")
    except typer.Abort:
        code = _failed(*interrupted)
    sys.exit(_failed(*interrupted) if code == _INTERRUPTED else code)


def _failed(message: str, remedy: str) -> int:
    typer.echo(f"error: {message}", err=True)
    if remedy:
        typer.echo(remedy, err=True)
    return 1
