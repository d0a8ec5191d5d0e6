"""Open the gRPC channel to a Triton Inference Server."""

from typing import Any

from gateway.settings import Settings

_MESSAGE_BYTES = 2**31 - 1
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]"}


def connect(settings: Settings) -> Any:
    """Return an asynchronous client of the server that the settings name. It connects in the background.

    Raises:
        ImportError: the triton extra is not installed.
        OSError: the file of certificates cannot be read.
        ValueError: the file of certificates is missing, or the address is malformed.
    """
    from tritonclient.grpc.aio import InferenceServerClient

    keepalive_ms = int(settings.triton_keepalive_s * 1000)
    ca_file = settings.triton_ca_file
    if ca_file is not None and not ca_file.is_file():
        raise ValueError(f"GATEWAY_TRITON_CA_FILE: {ca_file} does not exist")
    return InferenceServerClient(
        settings.triton_url,
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
        ],
    )


def authorization(settings: Settings) -> dict[str, str] | None:
    """Return the header that carries the token of the settings, or None without a token."""
    token = settings.triton_token
    return None if token is None else {"authorization": f"Bearer {token.get_secret_value()}"}


def is_local(url: str) -> bool:
    """Tell whether a Triton address is on this host."""
    return url.startswith("unix:") or url.rpartition(":")[0] in _LOCAL_HOSTS


def is_unreachable(error: Any) -> bool:
    """Tell whether an exception is gRPC's UNAVAILABLE."""
    return "UNAVAILABLE" in _status(error)


def is_out_of_time(error: Any) -> bool:
    """Tell whether an exception is gRPC's DEADLINE_EXCEEDED."""
    return "DEADLINE_EXCEEDED" in _status(error)


def _status(error: Any) -> str:
    status = getattr(error, "status", None)
    return "" if status is None else status() or ""
