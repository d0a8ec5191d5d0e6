"""``python -m gateway``: serve, print the effective settings, or make an API key."""

import argparse
import gc
import os
import shlex
import socket
import ssl
import sys
from contextlib import suppress

import uvicorn
from pydantic import ValidationError

from gateway.api.security.keys import KeyListError, entry_text, new_key
from gateway.cut_off_output import quiet_if_cut_off
from gateway.monitoring import logs
from gateway.process.server import GracefulServer
from gateway.setting_names import SettingsError, environment_warnings
from gateway.settings import Settings, setting_problems


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    given = _parser().parse_args(arguments)
    if given.command == "key":
        return _make_key(given.name, given.scope, given.allow or ["*"])
    try:
        settings = Settings()
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ValidationError as error:
        for problem in setting_problems(error):
            print(f"error: {problem}", file=sys.stderr)
        return 2
    if given.command == "settings":
        for warning in environment_warnings(os.environ, Settings.names()):
            print(f"warning: {warning}", file=sys.stderr)
        with quiet_if_cut_off():
            return _print_settings(settings, shell=given.shell)
    return _serve(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Visual inspection server.")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve (default)")
    settings = commands.add_parser("settings", help="print the effective settings")
    settings.add_argument("--shell", action="store_true", help="quote values for a POSIX shell and leave out secrets")
    key = commands.add_parser("key", help="make an API key and print it once, with its entry for GATEWAY_API_KEYS")
    key.add_argument("--name", required=True, help="name of its user, for the audit trail")
    key.add_argument("--scope", choices=("inspect", "teach"), required=True, help="teach includes inspect")
    key.add_argument(
        "--allow",
        action="append",
        metavar="ROLE/ROI",
        help="allowed ROI; ROLE/*, RECIPE/ROLE/ROI, RECIPE/*/* or * for others (default: *)",
    )
    return parser


def _make_key(name: str, scope: str, allow: list[str]) -> int:
    try:
        key, entry = new_key(name, "teach" if scope == "teach" else "inspect", allow)
    except ValidationError as error:
        for problem in error.errors():
            print(f"error: {problem['loc'][0]}: {problem['input']!r}: {problem['msg']}", file=sys.stderr)
        return 2
    print("The key, which is not stored anywhere, and its entry for the list of keys:", file=sys.stderr)
    print(key)
    print(entry_text(entry))
    return 0


def _print_settings(settings: Settings, *, shell: bool) -> int:
    for name, value in settings.effective().items():
        text = "" if value is None else str(value)
        if not shell:
            print(f"{name}={text}")
        elif name not in Settings.secret_names():  # a shell would use the mask as the value
            print(f"{name}={shlex.quote(text)}")
    return 0


def _serve(settings: Settings) -> int:
    logs.configure(settings)
    from gateway.api.security.loopback import is_loopback
    from gateway.detectors.spatial_weighting import RoiConfigError
    from gateway.errors import GatewayError
    from gateway.networks.embedded.runtimes import CudaUnavailableError
    from gateway.store.place import UnsuitableStorageError

    has_keys = settings.api_keys is not None or settings.api_keys_file is not None
    if not has_keys and not settings.allow_anonymous and not is_loopback(settings.host):
        print(
            f"error: GATEWAY_HOST={settings.host!r}: without API keys anybody in that network could teach and delete. "
            "Set GATEWAY_API_KEYS or GATEWAY_API_KEYS_FILE, or allow everybody with GATEWAY_ALLOW_ANONYMOUS=true",
            file=sys.stderr,
        )
        return 2
    try:
        _require_free(settings.host, settings.port)
    except OSError as error:
        print(
            f"error: GATEWAY_HOST={settings.host!r}, GATEWAY_PORT={settings.port}: {error.strerror}. Set another port, "
            "or end the program that listens there",
            file=sys.stderr,
        )
        return 2
    try:
        if settings.tls_cert is not None:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:
        print(f"error: GATEWAY_TLS_CERT={str(settings.tls_cert)!r}, or its key: {error}", file=sys.stderr)
        return 2
    gc.disable()  # until all modules are there
    try:
        from gateway.app import app

        with suppress(GatewayError):  # it does not answer: the gateway starts and says so
            app.state.services.store.storage.prepare()
    except RoiConfigError as error:
        print(f"error: GATEWAY_ROI_CONFIG: {error}", file=sys.stderr)
        return 2
    except CudaUnavailableError as error:
        print(f"error: GATEWAY_DEVICE=cuda: {error}", file=sys.stderr)
        return 2
    except (KeyListError, SettingsError, UnsuitableStorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    gc.freeze()  # what is there by now stays: no collection needs to look at it again
    gc.enable()
    # A line sends an image every few seconds and keeps its connection.
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_keep_alive=75,
        server_header=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    lifecycle = app.state.services.lifecycle
    GracefulServer(config, lifecycle, drain_s=settings.drain_s, grace_s=settings.shutdown_grace_s).run()
    return 0


def _require_free(host: str, port: int) -> None:
    """Tell at once, before the network is loaded, that an address cannot be listened on.

    Raises:
        OSError: says why not.
    """
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(1)


if __name__ == "__main__":
    sys.exit(main())
