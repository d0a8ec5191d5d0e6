"""`patchcore doctor`: what is installed, what the machine can do, what is used, and what fell back in silence."""

import asyncio
import importlib.util
import logging
import os
from collections.abc import AsyncIterator

import typer
from patchcore_client.calls import URL_VARIABLE

from command_line.commands import finish
from command_line.connection import Json, Key, Url
from command_line.doctor.check import Check, note
from command_line.doctor.gateway_there import address_checks
from command_line.doctor.machine import machine_checks
from command_line.exits import ExitStatus
from command_line.output import line, print_json

_MARKS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}


def register(app: typer.Typer) -> None:
    """Add `doctor` to an application."""

    @app.command("doctor")
    def doctor(url: Url = None, key: Key = None, json: Json = False) -> None:
        """Check this machine, the settings of a gateway on it, and the gateway at an address.

        Starts the engine of the settings once, in this process. Ends with status 1 if there is a problem.
        """
        finish(lambda: asyncio.run(_run(url, key, json=json)))


async def _run(url: str | None, key: str | None, *, json: bool) -> ExitStatus:
    logging.basicConfig(handlers=[logging.NullHandler()])  # what the engine logs is among the checks
    found = []
    async for check in _checks(url, key):
        found.append(check)
        if not json:
            line(f"{_MARKS[check.state]:<8} {check.about:<14} {check.found}")
            if check.remedy:
                line(f"{'':<8} {'':<14} → {check.remedy}")
    if json:
        print_json({"checks": [check.record() for check in found]})
    return ExitStatus.NG if any(check.state == "problem" for check in found) else ExitStatus.DONE


async def _checks(url: str | None, key: str | None) -> AsyncIterator[Check]:
    for check in machine_checks():
        yield check
    if importlib.util.find_spec("gateway") is None:
        yield note("gateway here", "not installed; this machine can only be a client", "pip install . in the checkout.")
    else:
        from command_line.doctor.gateway_here import gateway_checks

        async for check in gateway_checks():
            yield check
    for check in address_checks(url or os.environ.get(URL_VARIABLE), key):
        yield check
