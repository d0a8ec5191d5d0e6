"""`patchcore serve` and `patchcore export`: doors to the gateway and to the exporter."""

import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer

from command_line.commands import finish
from command_line.exits import CommandError, ExitStatus


def register(app: typer.Typer) -> None:
    """Add both to an application."""

    @app.command("serve")
    def serve(
        host: Annotated[
            str | None, typer.Option(help="Address to listen on. Default: GATEWAY_HOST, 127.0.0.1.")
        ] = None,
        port: Annotated[int | None, typer.Option(help="Port to listen on. Default: GATEWAY_PORT, 8080.")] = None,
        models: Annotated[
            Path | None,
            typer.Option(help="Models folder. Default: GATEWAY_MODELS_DIR.", metavar="DIR", file_okay=False),
        ] = None,
    ) -> None:
        """Serve: `python -m gateway`. Every other setting is in the environment or in `.env`."""
        given = {"HOST": host, "PORT": port, "MODELS_DIR": models and models.resolve()}
        os.environ.update({f"GATEWAY_{name}": str(value) for name, value in given.items() if value is not None})
        from gateway.__main__ import main

        raise typer.Exit(main(["serve"]))

    @app.command(
        "export", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
    )
    def export(ctx: typer.Context) -> None:
        """Export the network, or train a student: `python -m export`. See `patchcore export --help`."""
        finish(lambda: _export(ctx.args))


def _export(arguments: list[str]) -> ExitStatus | None:
    if importlib.util.find_spec("export") is None or importlib.util.find_spec("torch") is None:
        raise CommandError(
            "the exporter needs a checkout and torch, and one of them is missing here", "scripts/run installs both."
        )
    from export.__main__ import main

    raise typer.Exit(main(arguments))
