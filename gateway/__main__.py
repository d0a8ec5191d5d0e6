"""``python -m gateway``: serve, or print the effective settings."""

import argparse
import shlex
import sys

import uvicorn
from pydantic import ValidationError

from gateway import logs
from gateway.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Visual inspection server.")
    parser.add_argument(
        "command", nargs="?", choices=("serve", "settings"), default="serve", help="serve (default), or print settings"
    )
    parser.add_argument("--shell", action="store_true", help="settings: quoted for a POSIX shell")
    given = parser.parse_args(arguments)
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors():
            name = f"GATEWAY_{'_'.join(str(part) for part in problem['loc']).upper().removeprefix('GATEWAY_')}"
            print(f"error: {name}={problem.get('input')!r}: {problem['msg']}", file=sys.stderr)
        return 2
    if given.command == "settings":
        for name, value in settings.effective().items():
            text = "" if value is None else str(value)
            print(f"{name}={shlex.quote(text) if given.shell else text}")
        return 0
    logs.configure(settings)
    from gateway.spatial import RoiConfigError

    try:
        from gateway.app import app
    except RoiConfigError as error:
        print(f"error: GATEWAY_ROI_CONFIG: {error}", file=sys.stderr)
        return 2
    # A line sends an image every few seconds: its connection should still be there.
    uvicorn.run(app, host=settings.host, port=settings.port, log_config=None, access_log=False, timeout_keep_alive=75)
    return 0


if __name__ == "__main__":
    sys.exit(main())
