"""`aim scim`: the directory that others push to us. What a user types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aim.cli.options import DEFAULT_CONFIG, ConfigFile, Yes

if TYPE_CHECKING:
    from aim.ports.scim import ScimGrowth

app = typer.Typer(
    name="scim",
    help="Say that a directory pushed by SCIM is complete, look at how it grows, make tokens for clients.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def status(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Print how many users and groups were pushed, when the last one came, and whether they are all.

    Example: aim scim status
    """
    import asyncio

    from aim import errands
    from aim.cli import show
    from aim.cli.commands import load

    show.lines([_told(asyncio.run(errands.scim_growth(load(config))))])


@app.command()
def ready(config: ConfigFile = DEFAULT_CONFIG, yes: Yes = False) -> None:
    """Say that everybody is in it: from now on whoever is missing is removed, under the guards.

    Before that everything is added, and nobody is removed. `aim scim filling` takes it back.

    Example: aim scim ready
    """
    import asyncio

    from aim import errands
    from aim.cli import show
    from aim.cli.commands import agrees, load

    loaded = load(config)
    found = asyncio.run(errands.scim_growth(loaded))
    if found.ready_since is not None:
        show.lines([f"{_told(found)}: nothing to do"])
        return
    if not yes and not agrees(
        f"{_told(found)}. Are these all? Then whoever is missing is removed, by a running `aim run` at once; "
        "`aim plan` shows who that is.",
        "add --yes",
    ):
        raise typer.Exit(1)
    asyncio.run(errands.set_scim_ready(loaded, ready=True))
    show.lines(["from now on whoever is missing is removed, under the guards"])


@app.command()
def filling(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Take `aim scim ready` back: nobody is removed until it is said again.

    Example: aim scim filling
    """
    import asyncio

    from aim import errands
    from aim.cli import show
    from aim.cli.commands import load

    asyncio.run(errands.set_scim_ready(load(config), ready=False))
    show.lines(["nobody is removed until `aim scim ready`"])


tokens = typer.Typer(name="token", help="Tokens of clients.", rich_markup_mode=None)
app.add_typer(tokens)


@tokens.callback()
def _tokens() -> None:
    """Tokens of clients."""


@tokens.command()
def new(
    roles: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE", help="access:scope, such as *:* (the default) or read:users."),
    ] = None,
) -> None:
    """Make a random token for a client, and print the line of the configuration that lets it in. Changes
    nothing.

    Example: aim scim token new --roles '*:*'
    """
    import secrets
    from typing import get_args

    from aim.cli import show
    from aim.config.sources import Role
    from aim.errors import AimError

    for role in roles or ():
        if role not in get_args(Role):
            raise AimError(f"{role or 'nothing'} is no role", f"name one of {', '.join(get_args(Role))}")
    wanted = ", ".join(f"'{role}'" for role in roles or ["*:*"])
    show.lines(
        [
            "in source.client.rbac of the configuration (or the token in a file, as token_file):",
            f"- {{token: {secrets.token_hex(32)}, roles: [{wanted}]}}",
        ]
    )


def _told(found: ScimGrowth) -> str:
    last = f"the last at {found.last_write:%Y-%m-%d %H:%M} UTC" if found.last_write else "none yet"
    ready = found.ready_since
    state = "still filling" if ready is None else f"complete since {ready:%Y-%m-%d %H:%M} UTC"
    users = f"{found.users} users ({found.active} active)"
    return f"{users}, {found.groups} groups, {found.memberships} memberships; {last}; {state}"
