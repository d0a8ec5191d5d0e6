"""Settings from the environment or a ``.env`` file, with the prefix ``GATEWAY_``."""

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from gateway import DECODER_PIXELS
from gateway.setting_lists import client_keys, triton_targets
from gateway.setting_names import is_service_link, not_utf8, require_known_names

_CHECKOUT = Path(__file__).resolve().parent.parent
HOME = _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path.cwd()
"""Base of relative paths: the checkout, or the current folder if the gateway is installed without one."""

_BUCKETS = ("s3", "gs", "az")

MOST_TILES = 64
"""Limit of the limit of tiles."""
Percentile = Annotated[float, Field(ge=95, le=100)]


class Settings(BaseSettings):
    """All settings, validated and frozen. A name ends with its unit: bytes, pixels or s (seconds)."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_",
        env_file=HOME / ".env",
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

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

    engine: Literal["embedded", "triton"] = Field("embedded", description="engine that computes tokens")
    triton_url: str = Field(
        "localhost:8001",
        description="host:port of Triton's gRPC endpoint; several separated by commas, or `dns:///NAME:PORT` for all "
        "addresses of a name",
    )
    triton_timeout_s: float = Field(10.0, gt=0, le=600, description="deadline of a call to Triton for an inspection")
    triton_fit_timeout_s: float = Field(
        120.0, gt=0, le=3600, description="deadline of a call to Triton for one batch of a fit"
    )
    triton_fit_in_flight: int = Field(2, ge=1, le=64, description="number of fit batches that Triton processes at once")
    triton_shared_memory: Literal["auto", "on", "off"] = Field(
        "auto",
        validate_default=True,
        description="exchange images and tokens by shared memory; auto: if the one Triton runs on this host",
    )
    triton_keepalive_s: float = Field(10.0, ge=1, le=3600, description="interval of pings on an idle channel")
    triton_tls: bool = Field(False, description="encrypt the channel to Triton")
    triton_ca_file: Path | None = Field(None, description="PEM certificates to trust; by default those of gRPC")
    triton_token: SecretStr | None = Field(None, description="sent to Triton as `authorization: Bearer …`")
    model_repository: Path = Field(
        Path("model_repository"), description="Triton model repository with the exported model"
    )
    model_name: str = Field(
        "dinov2_vits14", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="name of the model in the repository"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device of the embedded engine; cuda: the gateway does not start without it"
    )
    precision: Literal["auto", "f32", "bf16", "int8"] = Field(
        "auto",
        description="precision of the embedded engine on CPU; auto: int8 if it is exported and the processor has VNNI "
        "and no AMX, else bf16 if the processor and the export support it, else f32",
    )
    engine_timeout_s: float = Field(
        30.0,
        gt=0,
        le=600,
        description="deadline of a call to the embedded engine for an inspection, including its wait",
    )
    engine_fit_timeout_s: float = Field(
        120.0, gt=0, le=3600, description="deadline of a call to the embedded engine for one batch of a fit"
    )
    search: Literal["auto", "numpy", "faiss", "faiss-gpu", "sklearn"] = Field(
        "auto", description="library for nearest neighbours; auto: FAISS if it finds a GPU, else numpy"
    )
    threads: int = Field(0, ge=0, description="threads of the computing libraries; 0: one per core")

    coreset_rate: float = Field(0.02, gt=0, le=1, description="share of the OK tokens that a memory bank keeps")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the coreset's first centre")
    k: int = Field(
        1, ge=1, le=100, description="number of neighbours whose mean distance is a patch distance; stored by the fit"
    )
    p_score: Percentile = Field(99.0, description="percentile of the anomaly map that is the score")
    blur_sigma: float = Field(
        1.0, ge=0, le=20, description="blur of the map that regions are cut from: standard deviation in pixels"
    )
    area_mm2_thr: float = Field(1.0, ge=0, description="smallest area of a region, in mm²")
    false_alarm_rate: float = Field(
        0.02, gt=0, lt=1, description="share of OK images that a calibration may reject, unless the request names one"
    )
    threshold_margin: float = Field(
        0.0, ge=0, le=2, description="added to p99 of the OK scores if no NG score is given"
    )
    roi_config: Path = Field(
        Path("Training/pcl_roi_config.json"),
        description='file of manual boxes, `{"roi_id": [y1, y2, x1, x2]}`; optional',
    )
    roi_config_size: int = Field(
        128, ge=1, le=65536, description="side of the square image that the boxes refer to, in pixels"
    )
    mask_min_weight: float = Field(
        0.1,
        ge=0,
        le=100,
        validation_alias=AliasChoices("GATEWAY_MASK_MIN_WEIGHT", "MASK_MIN_WEIGHT"),
        description="spatial weight outside a manual box, or where OK maps vary most",
    )
    mask_max_weight: float = Field(
        2.0,
        gt=0,
        le=100,
        validation_alias=AliasChoices("GATEWAY_MASK_MAX_WEIGHT", "MASK_MAX_WEIGHT"),
        description="spatial weight inside a manual box, or where OK maps vary least",
    )
    spatial_weights: Literal["none", "variance"] = Field(
        "none", description="for an ROI without a manual box; variance: weights by the spread of its OK maps"
    )
    heatmap: Literal["base64", "path", "none"] = Field("base64", description="how /infer returns the heatmap")

    max_body_bytes: int = Field(512 * 2**20, gt=0, description="limit of a request body")
    max_json_bytes: int = Field(
        2 * 2**20, gt=0, description="limit of a request body without files, and of one text field in a form"
    )
    max_image_bytes: int = Field(32 * 2**20, gt=0, description="limit of one image file")
    max_image_pixels: int = Field(
        25_000_000, gt=0, le=DECODER_PIXELS, description="limit of width × height of one image, read from its header"
    )
    max_tiles: int = Field(
        9, ge=1, le=MOST_TILES, description="limit of the tiles that an image is cut into; 1: new ROIs have no tiles"
    )
    max_batch_images: int = Field(32, gt=0, description="limit of images in one /infer_batch")
    max_fit_images: int = Field(500, gt=0, le=1000, description="limit of images in one /fit_ok")
    max_roi_images: int = Field(2000, gt=0, description="limit of OK images of one ROI")
    max_stored_images: int = Field(5000, gt=0, description="limit of stored images of one ROI, OK and NG together")
    max_stored_bytes: int = Field(4 * 2**30, gt=0, description="limit of their files together")
    max_regions: int = Field(
        500,
        gt=0,
        description="limit of regions in one answer; the largest are returned, and a warning counts the others",
    )
    max_contour_points: int = Field(
        20_000,
        ge=4,
        validate_default=True,
        description="limit of contour points in one answer; above it the longest are simplified, with a warning",
    )
    max_queued_inspections: int = Field(
        64,
        gt=0,
        description="limit of inspections that run or wait; more are refused with 429, first of the line that floods",
    )
    max_queued_fits: int = Field(4, gt=0, description="limit of fits that run or wait; more are refused with 429")
    max_queue_s: float = Field(
        5.0,
        gt=0,
        description="limit of the expected waiting time of an inspection; above it inspections are refused with 429",
    )
    max_fit_memory_bytes: int = Field(
        2 * 2**30,
        gt=0,
        description="memory that the running fits take together, estimated from their images and coreset_rate; more "
        "are refused with 429, and a fit that takes more alone with 413",
    )
    max_queued_bytes: int = Field(
        2**30,
        gt=0,
        description="limit of the request bodies of all inspections that run or wait; the same limit holds for fits",
    )
    min_upload_bytes_s: int = Field(65536, gt=0, description="lowest mean rate of an upload, after the first 10 s")
    drain_s: float = Field(
        0.0, ge=0, le=600, description="after SIGTERM, time during which /ready is 503 and work is still accepted"
    )
    shutdown_grace_s: float = Field(
        25.0, ge=0, le=3600, description="after that, time for the accepted work to end before it is cancelled"
    )
    fit_lock_timeout_s: float = Field(60.0, gt=0, description="how long a fit waits for another fit of the same ROI")
    bank_cache_bytes: int = Field(2 * 2**30, gt=0, description="limit of the memory of all loaded versions")
    network_cache_bytes: int = Field(
        4 * 2**30, gt=0, description="limit of the estimated memory of all student-teacher networks that stay compiled"
    )
    keep_versions: int = Field(5, ge=1, description="versions of a memory bank to keep on disk")

    state_dir: Path = Field(Path(".state"), description="folder of recent scores for drift; for this host only")
    drift_window: int = Field(
        200, ge=50, le=100_000, description="recent inspections per ROI that drift is measured with"
    )
    keep_inspections: bool = Field(
        False, description="keep inspected images in GATEWAY_STATE_DIR, to review them on the page"
    )
    keep_inspections_bytes: int = Field(
        2**30, gt=0, description="limit of the images that are kept for review, of all ROIs together"
    )
    keep_inspections_days: int = Field(30, ge=1, le=36_500, description="days for which they are kept")
    metrics_max_rois: int = Field(
        100, ge=0, le=10_000, description="ROIs with metrics of their own; the others share the label `other`"
    )
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else json")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")
    otlp_endpoint: str | None = Field(
        None, description="collector of traces by OTLP over gRPC, such as http://collector:4317"
    )

    def __init__(self, **values: Any) -> None:
        """Read the settings.

        Args:
            values: settings that override those of the environment and of ``.env``.

        Raises:
            SettingsError: ``.env`` is not UTF-8, or has an unknown name.
            ValidationError: a value is invalid.
        """
        try:
            super().__init__(**values)
        except UnicodeDecodeError:
            raise not_utf8(str(self.model_config.get("env_file"))) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Check the names in ``.env``, and leave out variables that Kubernetes set for a service."""
        if isinstance(dotenv_settings, EnvSettingsSource):
            require_known_names(dotenv_settings.env_vars, cls.names(), str(cls.model_config.get("env_file")))
        if isinstance(env_settings, EnvSettingsSource):
            variables = env_settings.env_vars.items()
            env_settings.env_vars = {n: value for n, value in variables if not is_service_link(n, value)}
        return init_settings, env_settings, dotenv_settings

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

    @field_validator(
        "models_dir",
        "heatmap_dir",
        "cache_dir",
        "state_dir",
        "model_repository",
        "triton_ca_file",
        "roi_config",
        "api_keys_file",
        "tls_cert",
        "tls_key",
    )
    @classmethod
    def _from_home(cls, path: Path | str | None) -> Path | str | None:
        return HOME / path if isinstance(path, Path) else path

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

    @field_validator("triton_url")
    @classmethod
    def _hosts_and_ports(cls, url: str) -> str:
        targets = triton_targets(url)
        for target in targets:
            found = re.fullmatch(r"(?:dns:///)?(?:[^\s/:\[\]]+|\[[0-9a-fA-F:.]+\]):([0-9]+)", target)
            if not target.startswith("unix:/") and not (found and 0 < int(found[1]) < 65536):
                raise ValueError(
                    f"{target!r}: expected HOST:PORT without http://, such as localhost:8001, or unix:/PATH, or "
                    "dns:///NAME:PORT; several are separated by commas"
                )
        if twice := [target for target in targets if targets.count(target) > 1]:
            raise ValueError(f"{twice[0]!r} is there twice")
        return url

    @field_validator("triton_shared_memory")
    @classmethod
    def _with_one_server(cls, mode: str, info: ValidationInfo) -> str:
        url = info.data.get("triton_url", "")
        if mode == "on" and (len(triton_targets(url)) > 1 or url.startswith("dns:")):
            raise ValueError("shared memory needs one server: GATEWAY_TRITON_URL has several, so use auto or off")
        return mode

    @field_validator("triton_token")
    @classmethod
    def _printable(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not re.fullmatch(r"[!-~]+", token.get_secret_value()):
            raise ValueError("expected printable ASCII characters without spaces")
        return token

    @field_validator("mask_max_weight")
    @classmethod
    def _above_the_smallest(cls, largest: float, info: ValidationInfo) -> float:
        smallest = info.data.get("mask_min_weight", 0.0)
        if largest < smallest:
            raise ValueError(f"below GATEWAY_MASK_MIN_WEIGHT, {smallest:g}")
        return largest

    @field_validator("max_contour_points")
    @classmethod
    def _enough_for_each_region(cls, points: int, info: ValidationInfo) -> int:
        regions = info.data.get("max_regions", 1)
        if points < 4 * regions:
            raise ValueError(f"below 4 × GATEWAY_MAX_REGIONS, {4 * regions}: a region has four corners")
        return points

    @field_validator("tls_key")
    @classmethod
    def _of_a_certificate(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if (key is None) != (info.data.get("tls_cert") is None):
            raise ValueError("GATEWAY_TLS_CERT and GATEWAY_TLS_KEY must be set together; one is missing")
        return key

    @property
    def gui_client_keys(self) -> tuple[tuple[IPv4Network | IPv6Network, str], ...]:
        """Networks of the desktop GUI, each with the name of its API key."""
        return tuple(client_keys(self.gui_clients))

    @property
    def origins(self) -> tuple[str, ...]:
        """Other sites whose pages may send requests."""
        return tuple(origin.strip() for origin in self.cors_origins.split(",") if origin.strip())

    @property
    def triton_targets(self) -> tuple[str, ...]:
        """Addresses of Triton servers, in the order of the setting."""
        return triton_targets(self.triton_url)

    @property
    def model_folder(self) -> Path:
        """Folder of the served model, with numbered versions and ``config.pbtxt``."""
        return self.model_repository / self.model_name

    def effective(self) -> dict[str, Any]:
        """Return every setting by the name of its environment variable. Secrets are masked."""
        return {f"GATEWAY_{name.upper()}": value for name, value in self.model_dump(mode="json").items()}

    @classmethod
    def names(cls) -> set[str]:
        """Return the names of all settings in the environment."""
        aliases = [field.validation_alias for field in cls.model_fields.values()]
        others = {str(name) for alias in aliases if isinstance(alias, AliasChoices) for name in alias.choices}
        return {f"GATEWAY_{name.upper()}" for name in cls.model_fields} | others

    @classmethod
    def secret_names(cls) -> set[str]:
        """Return the environment variables that hold a secret."""
        fields = cls.model_fields.items()
        return {f"GATEWAY_{name.upper()}" for name, field in fields if field.annotation == SecretStr | None}


def setting_problems(error: ValidationError) -> list[str]:
    """Return one line for each invalid setting: its name in the environment, its value, and what is wrong."""
    lines = []
    for problem in error.errors():
        name = f"GATEWAY_{'_'.join(str(part) for part in problem['loc']).upper().removeprefix('GATEWAY_')}"
        value = "(secret)" if name in Settings.secret_names() else repr(problem.get("input"))
        lines.append(f"{name}={value}: {problem['msg'].removeprefix('Value error, ')}")
    return lines
