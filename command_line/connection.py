"""Which gateway a command talks to: one at an address, or one in this process over a models folder."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from patchcore_client import AsyncPatchcoreClient
from patchcore_client.calls import KEY_VARIABLE, URL_VARIABLE

from command_line.exits import UsageError

_PANEL = "Gateway"
_REMOTE_IN_FLIGHT = 8
_LOCAL_IN_FLIGHT = 2

Url = Annotated[
    str | None,
    typer.Option(
        help="Address of the gateway. Default: http://127.0.0.1:8080.",
        envvar=URL_VARIABLE,
        rich_help_panel=_PANEL,
        metavar="URL",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        help="API key. The environment keeps it out of the list of processes.",
        envvar=KEY_VARIABLE,
        rich_help_panel=_PANEL,
        metavar="KEY",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The options of a command that needs a gateway."""

    url: Url = None
    key: Key = None
    local: Annotated[
        Path | None,
        typer.Option(
            help="Compute in this process, with the settings of a gateway and this models folder.",
            rich_help_panel=_PANEL,
            metavar="MODELS_DIR",
            file_okay=False,
            resolve_path=True,
        ),
    ] = None
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe, a variant of the product. Default: default.", rich_help_panel=_PANEL, metavar="ID"),
    ] = None
    json: Json = False


@dataclass(frozen=True, slots=True)
class Session:
    """What a running command works with."""

    client: AsyncPatchcoreClient
    """Of the recipe of the command."""
    recipe: str | None
    """None is the recipe `default`."""
    json: bool
    """Whether to print JSON."""
    in_flight: int
    """How many images to send at once."""


@asynccontextmanager
async def session(given: Connection, *, url_was_typed: bool) -> AsyncIterator[Session]:
    """Connect, or start a gateway in this process.

    Args:
        given: the options.
        url_was_typed: whether `url` is from the command line and not from the environment.

    Raises:
        UsageError: an address and a folder are given, or the address is invalid.
        CommandError: the gateway in this process cannot start.
    """
    if given.local is not None:
        if url_was_typed:
            raise UsageError("--url and --local were given", "Give one of them.")
        from command_line.local import local_client

        async with local_client(given.local, given.recipe) as client:
            yield Session(client, given.recipe, given.json, _LOCAL_IN_FLIGHT)
        return
    try:
        client = AsyncPatchcoreClient(given.url, given.key, recipe_id=given.recipe)
    except ValueError as error:
        raise UsageError(str(error)) from error
    async with client:
        yield Session(client, given.recipe, given.json, _REMOTE_IN_FLIGHT)
