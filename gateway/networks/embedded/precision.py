"""Choose the precision of a network on CPU, by what the processor computes fast and what the export has checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.networks.embedded.runtimes import Precision, supports_bf16
from gateway.networks.model_description import ModelDescription

AskedPrecision = Literal["auto", "f32", "bf16", "int8"]


@dataclass(frozen=True, slots=True)
class Processor:
    """What a processor computes with, as far as it matters here."""

    has_amx: bool
    """Matrix units, with which bf16 takes as long as int8."""
    has_vnni: bool
    """Products of int8 (VNNI)."""
    has_bf16: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """A precision, and why it is that one."""

    precision: Precision
    reason: str


def this_processor() -> Processor:
    """Look at this machine. Without ``/proc/cpuinfo``, AMX and VNNI are unknown and count as missing."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    flags = set(next((line for line in lines if line.startswith("flags")), "").split())
    return Processor(
        has_amx={"amx_tile", "amx_bf16", "amx_int8"} <= flags,
        has_vnni=bool({"avx512_vnni", "avx_vnni"} & flags),
        has_bf16=supports_bf16(),
    )


def choose_precision(model: ModelDescription, asked: AskedPrecision, processor: Processor) -> Choice:
    """Choose the precision in which a model is served on CPU.

    Args:
        model: as exported.
        asked: ``GATEWAY_PRECISION``.
        processor: of this machine.

    Raises:
        RuntimeError: the processor or the export does not have what was asked for.
    """
    no_int8 = _why_no_int8(model)
    no_bf16 = _why_no_bf16(model, processor)
    if asked == "int8":
        if no_int8 is not None:
            raise RuntimeError(f"GATEWAY_PRECISION=int8, but {no_int8}: use auto, or `python -m export --int8 FOLDER`")
        return Choice("int8", "GATEWAY_PRECISION=int8")
    if asked == "bf16":
        if no_bf16 is not None:
            raise RuntimeError(f"GATEWAY_PRECISION=bf16, but {no_bf16}: use auto")
        return Choice("bf16", "GATEWAY_PRECISION=bf16")
    if asked == "f32":
        return Choice("f32", "GATEWAY_PRECISION=f32")
    if processor.has_vnni and not processor.has_amx and no_int8 is None:
        return Choice("int8", "auto: the processor has VNNI and no AMX, and the int8 export passed its check")
    if no_bf16 is not None:
        return Choice("f32", f"auto: {no_bf16}")
    if processor.has_amx:
        return Choice("bf16", "auto: the processor has AMX, with which int8 is not faster")
    why = f"and {no_int8}" if processor.has_vnni else "and no VNNI"
    return Choice("bf16", f"auto: the processor has bf16, {why}")


def _why_no_int8(model: ModelDescription) -> str | None:
    if model.int8 is None:
        return "the model has no int8 export"
    return None if model.int8.passed else f"the int8 export failed its check ({model.int8.in_words})"


def _why_no_bf16(model: ModelDescription, processor: Processor) -> str | None:
    if not processor.has_bf16:
        return "the processor has no bf16"
    checked = model.parity.get("openvino-bf16")
    return None if checked is not None and checked.passed else "the export did not pass its check in bf16"
