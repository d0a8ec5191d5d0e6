"""Settings of the service: where it listens, who may use it, and where it keeps what it learns."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator

from gateway.setting_lists import client_keys

_BUCKETS = ("s3", "gs", "az")


class ServiceSettings(BaseModel):
    """Address, API keys, the desktop GUI, TLS, and folders."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    api_keys: SecretStr | None = Field(
        None, description="API keys: JSON list of the entries that `python -m gateway key` prints"
    )
    api_keys_file: Path | None = Field(None, description="file with such a list")
    allow_anonymous: bool = Field(False, description="without keys, answer on other addresses than loopback as well")
    cors_origins: str = Field(
        "",
        pattern=r"^(https?://[^\s/,*]+( *, *https?://[^\s/,*]+)*)?$",
        description="sites whose pages may send requests, such as `https://mes.plant.example`, separated by commas",
    )
    gui_dialect: bool = Field(True, description="serve the desktop GUI under /gui")
    gui_root: bool = Field(
        False,
        validate_default=True,
        description="serve the desktop GUI at / too, where its base URL cannot have a path",
    )
    gui_clients: str = Field(
        "",
        description="API key of each address that the desktop GUI runs at, as it sends none itself: `CIDR=NAME` of a "
        "key, such as `10.0.3.0/24=desktop`, separated by commas",
    )
    tls_cert: Path | None = Field(None, description="PEM certificate chain; with it the gateway serves HTTPS")
    tls_key: Path | None = Field(None, validate_default=True, description="PEM private key of the certificate")
    models_dir: Path | str = Field(
        Path("models"),
        description="folder of OK images, memory banks and calibrations, or the URL of a bucket: `s3://BUCKET/PREFIX`, "
        "`gs://…` or `az://…`",
    )
    store_poll_s: float = Field(
        1.0, ge=0.05, le=60, description="with a bucket: how old the known version of an ROI may be"
    )
    store_cache_bytes: int = Field(
        4 * 2**30, gt=0, description="with a bucket: limit of its files that are kept in GATEWAY_CACHE_DIR"
    )
    heatmap_dir: Path | None = Field(None, description="folder of the heatmaps that clients request with heatmap=path")
    heatmap_keep_days: int | None = Field(
        None, ge=1, le=36_500, description="days to keep heatmaps in that folder; older ones are removed daily"
    )
    cache_dir: Path = Field(Path(".cache"), description="folder of compiled networks; may be deleted at any time")

    @field_validator("gui_root")
    @classmethod
    def _with_the_dialect(cls, root: bool, info: ValidationInfo) -> bool:
        if root and not info.data.get("gui_dialect", True):
            raise ValueError("GATEWAY_GUI_DIALECT is false; set it to true, or leave GATEWAY_GUI_ROOT out")
        return root

    @field_validator("gui_clients")
    @classmethod
    def _networks_and_names(cls, text: str) -> str:
        networks = [network for network, _ in client_keys(text)]
        if twice := [network for network in networks if networks.count(network) > 1]:
            raise ValueError(f"{str(twice[0])!r} is there twice")
        return text

    @field_validator("tls_key")
    @classmethod
    def _of_a_certificate(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if (key is None) != (info.data.get("tls_cert") is None):
            raise ValueError("GATEWAY_TLS_CERT and GATEWAY_TLS_KEY must be set together; one is missing")
        return key

    @field_validator("models_dir", mode="before")
    @classmethod
    def _models_dir(cls, where: Any) -> Any:
        return cls.folder_or_url(where) if isinstance(where, str) else where

    @staticmethod
    def folder_or_url(where: str) -> Path | str:
        """Return the folder or the URL of a bucket that a text names.

        Raises:
            ValueError: it is the URL of something else, or has credentials.
        """
        scheme, is_url, rest = where.partition("://")
        if not is_url:
            return Path(where)
        if scheme not in _BUCKETS or not rest.strip("/"):
            raise ValueError(f"{where[:100]!r}: expected a folder, or {', '.join(f'{each}://…' for each in _BUCKETS)}")
        if "@" in rest or "?" in rest:
            raise ValueError("a URL without credentials: they belong into variables such as AWS_ACCESS_KEY_ID")
        return where.rstrip("/")

    @property
    def gui_client_keys(self) -> tuple[tuple[IPv4Network | IPv6Network, str], ...]:
        """Networks of the desktop GUI, each with the name of its API key."""
        return tuple(client_keys(self.gui_clients))

    @property
    def origins(self) -> tuple[str, ...]:
        """Other sites whose pages may send requests."""
        return tuple(origin.strip() for origin in self.cors_origins.split(",") if origin.strip())
