"""The application: every command in its place."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from command_line import doctor, infer, server, watch
from command_line.image_commands import images_app
from command_line.output import line
from command_line.roi_commands import roi_app

app = typer.Typer(
    name="patchcore",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Visual inspection that learns from good parts: a client of a PatchCore gateway.",
    epilog="Exit status: 0 done; 1 ng with --fail-on-ng, or a failed check; 2 wrong usage; 3 refused, or no answer.",
)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        line(f"patchcore {version('patchcore-gateway')}")
    except PackageNotFoundError:  # a folder on the path that was not installed
        line("patchcore, not installed")
    raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options of all commands."""


infer.register(app)
watch.register(app)
roi_app.add_typer(images_app, name="images")
app.add_typer(roi_app, name="roi")
doctor.register(app)
server.register(app)
