"""`aim queue`: who left the directory and waits for the erasure of their account. What a user types."""

from __future__ import annotations

from typing import Annotated

import typer

from aim.cli.options import DEFAULT_CONFIG, ConfigFile, Json

app = typer.Typer(
    name="queue",
    help="Show and change the deprovisioning queue: who left the directory and waits, locked, to be erased.",
    invoke_without_command=True,
    rich_markup_mode=None,
)

Sure = Annotated[bool, typer.Option("--yes", "-y", help="It is meant: nothing brings them back.")]
Person = Annotated[str, typer.Argument(metavar="MXID", help="The person, or their localpart.")]


@app.callback()
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(name="list")
def show(
    config: ConfigFile = DEFAULT_CONFIG,
    within: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what falls due in that time: 12h, 7d.")
    ] = None,
    json: Json = False,
) -> None:
    """Print who waits, since when, until when and why. Changes nothing.

    Example: aim queue list --within 7d
    """
    from aim.cli import queueing

    raise typer.Exit(queueing.show(config, within=within, json=json))


@app.command()
def restore(person: Person, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Let somebody keep their account although they left: unlocked, and not erased until they are released.

    Example: aim queue restore @evan:example.com
    """
    from aim.cli import queueing

    raise typer.Exit(queueing.restore(config, person))


@app.command()
def erase(
    person: Person,
    config: ConfigFile = DEFAULT_CONFIG,
    yes: Sure = False,
) -> None:
    """Have somebody on the queue erased at once. Also lifts the guard for this one erasure.

    Example: aim queue erase @evan:example.com --yes
    """
    from aim.cli import queueing

    raise typer.Exit(queueing.erase(config, person, yes=yes))


@app.command()
def hold(person: Person, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Keep somebody locked, and not erased before they are released.

    Example: aim queue hold @evan:example.com
    """
    from aim.cli import queueing

    raise typer.Exit(queueing.hold(config, person))


@app.command()
def release(person: Person, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Let go of somebody who was held: their time counts again. Whoever was restored is locked, and waits for
    the whole soft_delete_period from then on.

    Example: aim queue release @evan:example.com
    """
    from aim.cli import queueing

    raise typer.Exit(queueing.release(config, person))


@app.command()
def reschedule(
    person: Annotated[
        str | None, typer.Argument(metavar="[MXID]", help="The person, or their localpart.")
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody on the queue.")] = False,
    yes: Sure = False,
) -> None:
    """Give those who wait the soft_delete_period that is configured now, counted from when they were queued.
    Needs --yes where that makes anybody due within a day.

    Example: aim queue reschedule --all
    """
    from aim.cli import queueing

    raise typer.Exit(queueing.reschedule(config, person, everybody=everybody, yes=yes))
