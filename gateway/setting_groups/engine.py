"""Settings of the engine that computes tokens, and of the search."""

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator

from gateway.setting_lists import triton_targets


class EngineSettings(BaseModel):
    """Triton, the model, the embedded engine, and threads."""

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
    runtime: Literal["auto", "tensorrt-rtx"] = Field(
        "auto",
        description="runtime of the embedded engine; tensorrt-rtx: TensorRT-RTX on an RTX GPU; the gateway does not "
        "start without it",
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

    @property
    def triton_targets(self) -> tuple[str, ...]:
        """Addresses of Triton servers, in the order of the setting."""
        return triton_targets(self.triton_url)

    @property
    def model_folder(self) -> Path:
        """Folder of the served model, with numbered versions and ``config.pbtxt``."""
        return self.model_repository / self.model_name
