"""How a function becomes a command: its options, its session, and its exit status."""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn

import typer
from patchcore_client import ConnectError, GatewayError, PatchcoreError

from command_line.connection import Connection, session
from command_line.exits import CommandError, ExitStatus, UsageError
from command_line.output import say

_HINTS = {
    "image_conflict": "Check the picture. `patchcore roi images relabel` changes the label.",
    "model_mismatch": "`patchcore roi fit` without files learns its OK images again.",
    "unauthorized": "Give a key with --key or PATCHCORE_KEY. The administrator makes keys.",
    "unknown_roi": "`patchcore roi list` lists the ROIs, `patchcore roi fit` teaches one.",
    "unknown_version": "`patchcore roi show` lists the kept versions.",
}
"""What to do about an error in this command line. The gateway's own hints name requests."""
_CONNECT_HINT = "Is the gateway running? `patchcore serve` starts one here; --url or PATCHCORE_URL names another."

Work = Callable[..., Awaitable[ExitStatus | None]]


def command(app: typer.Typer, name: str) -> Callable[[Work], Work]:
    """Register a coroutine function as a command that needs a gateway.

    Its first parameter gets the `Session`. A parameter whose type is a dataclass becomes one option for each field.
    """

    def register(work: Work) -> Work:
        own = list(inspect.signature(work).parameters.values())[1:]
        groups = {each.name: each.annotation for each in own if _is_group(each.annotation)}

        @functools.wraps(work)
        def run(ctx: typer.Context, **given: Any) -> None:
            connection = _collected(Connection, given)
            for group, kind in groups.items():
                given[group] = _collected(kind, given)
            source = ctx.get_parameter_source("url")
            url_was_typed = source is not None and source.name == "COMMANDLINE"

            async def working() -> ExitStatus | None:
                async with session(connection, url_was_typed=url_was_typed) as found:
                    return await work(found, **given)

            finish(lambda: asyncio.run(working()))

        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        plain = [each for each in own if each.name not in groups]
        options = [each for kind in (*groups.values(), Connection) for each in _parameters(kind)]
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (context, *plain, *options)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        app.command(name)(run)
        return work

    return register


def finish(work: Callable[[], ExitStatus | None]) -> NoReturn:
    """Do the work of a command and end with its exit status. Errors are printed with what to do about them."""
    try:
        status = work() or ExitStatus.DONE
    except CommandError as error:
        _fail(str(error), error.hint, error.status)
    except GatewayError as error:
        _fail(f"{error.code}: {error.message}", _HINTS.get(error.code, error.hint), ExitStatus.FAILED)
    except ConnectError as error:
        _fail(str(error), _CONNECT_HINT, ExitStatus.FAILED)
    except PatchcoreError as error:
        _fail(str(error), "", ExitStatus.FAILED)
    except BrokenPipeError:  # of `patchcore … | head`; Typer ends the process
        raise
    except OSError as error:
        _fail(str(error), "", ExitStatus.FAILED)
    raise typer.Exit(status)


def confirmed(what: str, *, yes: bool) -> bool:
    """Ask whether to delete something.

    Raises:
        UsageError: nobody can be asked, and `--yes` was not given.
    """
    if yes:
        return True
    if not typer.get_text_stream("stdin").isatty():
        raise UsageError(f"{what}: nobody can be asked here", "Add --yes to delete, or --dry-run to look.")
    return typer.confirm(f"{what}?", err=True)


def _fail(message: str, hint: str, status: ExitStatus) -> NoReturn:
    say(f"error: {message}")
    if hint:
        say(hint)
    raise typer.Exit(status)


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and is_dataclass(annotation)


def _parameters(kind: type[Any]) -> list[inspect.Parameter]:
    signature = inspect.signature(kind)
    return list(signature.parameters.values())


def _collected(kind: type[Any], given: dict[str, Any]) -> Any:
    """Take the values of a group out of those given."""
    return kind(**{each.name: given.pop(each.name) for each in fields(kind)})
