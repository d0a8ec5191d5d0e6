"""Open the gRPC channel to a Triton Inference Server."""

from typing import Any

from gateway.settings import Settings

_MESSAGE_BYTES = 2**31 - 1
_AUTHORITY = ("default_authority", "ssl_target_name_override")
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]"}


def connect(settings: Settings, address: str, authority: str | None = None) -> Any:
    """Return an asynchronous client of one server. It connects in the background.

    Args:
        settings: encryption and pings.
        address: ``HOST:PORT`` or ``unix:/PATH``.
        authority: the name that the server's certificate must have, where `address` is not that name.

    Raises:
        ImportError: the triton extra is not installed.
        OSError: the file of certificates cannot be read.
        ValueError: the file of certificates is missing, or the address is malformed.
    """
    from tritonclient.grpc.aio import InferenceServerClient

    keepalive_ms = int(settings.triton_keepalive_s * 1000)
    ca_file = settings.triton_ca_file
    if ca_file is not None and not ca_file.is_file():
        raise ValueError(f"GATEWAY_TRITON_CA_FILE: {ca_file} is not a file")
    if ca_file is not None and b"-----BEGIN CERTIFICATE-----" not in ca_file.read_bytes():
        raise ValueError(f"GATEWAY_TRITON_CA_FILE: {ca_file} contains no PEM certificate")
    return InferenceServerClient(
        address,
        ssl=settings.triton_tls,
        root_certificates=None if ca_file is None else str(ca_file),
        channel_args=[
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", keepalive_ms),
            ("grpc.keepalive_timeout_ms", keepalive_ms),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            # By default, gRPC waits up to two minutes before it tries to reconnect.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            *([] if authority is None else [(f"grpc.{name}", authority) for name in _AUTHORITY]),
        ],
    )


def authorization(settings: Settings) -> dict[str, str] | None:
    """Return the header that carries the token of the settings, or None without a token."""
    token = settings.triton_token
    return None if token is None else {"authorization": f"Bearer {token.get_secret_value()}"}


def is_local(targets: tuple[str, ...]) -> bool:
    """Tell whether these addresses of Triton are one server on this host."""
    (target, *others) = targets
    return not others and (target.startswith("unix:") or target.rpartition(":")[0] in _LOCAL_HOSTS)


def is_unreachable(error: Any) -> bool:
    """Tell whether an exception is gRPC's UNAVAILABLE."""
    return "UNAVAILABLE" in _status(error)


def is_out_of_time(error: Any) -> bool:
    """Tell whether an exception is gRPC's DEADLINE_EXCEEDED."""
    return "DEADLINE_EXCEEDED" in _status(error)


def _status(error: Any) -> str:
    status = getattr(error, "status", None)
    return "" if status is None else status() or ""
