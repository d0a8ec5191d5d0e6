"""One version on disk: its files, each checked against its checksum before it is used."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.store.arrays import npy_bytes, npz_bytes, read_weights, view_npz
from gateway.store.checksummed import DamagedError, sha256_of
from gateway.store.manifest import INDEX, LEAVE_ONE_OUT, MANIFEST, SEARCH, WEIGHTS, FileName, Manifest
from gateway.store.ok_maps import OkMaps


def version_files(
    manifest: Manifest,
    content: Mapping[FileName, bytes],
    weights: NDArray[np.float32] | None,
    ok_maps: OkMaps | None,
) -> tuple[Manifest, dict[str, bytes]]:
    """Return all files of a version's folder, the manifest included.

    Args:
        manifest: without its checksums.
        content: the files of the detector, from `Detector.files`.
        weights: float32 [h, w], the spatial weights of the ROI.
        ok_maps: the leave-one-out maps; None for a version with one image.

    Returns:
        The manifest with its checksums, and the bytes of every file by name.
    """
    files = dict(content)
    if weights is not None:
        files[WEIGHTS] = npy_bytes(weights)
    if ok_maps is not None:
        files[LEAVE_ONE_OUT] = npz_bytes(distances=ok_maps.distances, mean=ok_maps.mean(), std=ok_maps.spread())
    checksums = {name: sha256_of(data) for name, data in files.items()}
    search_sha256 = checksums.pop(SEARCH, None)
    manifest = manifest.model_copy(update={"files": checksums, "search_sha256": search_sha256})
    return manifest, {**{str(name): data for name, data in files.items()}, MANIFEST: manifest.to_bytes()}


def read_file(path: Path) -> bytes:
    """Return the bytes of a file that should exist.

    Raises:
        DamagedError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path.name}: {error.strerror}") from error


def read_manifest(folder: Path, sha256: str | None) -> Manifest:
    """Return the manifest of a version.

    Args:
        folder: folder of the version.
        sha256: expected checksum of the manifest; None if it is unknown.

    Raises:
        DamagedError: the manifest is missing or damaged.
        NewerFormatError: the manifest is whole but has a later format.
    """
    data = read_file(folder / MANIFEST)
    if sha256 is not None and sha256_of(data) != sha256:
        raise DamagedError(f"{MANIFEST} fails its checksum")
    return Manifest.from_bytes(data, MANIFEST)


def read_verified(folder: Path, manifest: Manifest, name: FileName) -> bytes:
    """Return one file that a manifest names.

    Raises:
        DamagedError: the file is missing or damaged.
    """
    data = read_file(folder / name)
    if sha256_of(data) != manifest.checksums[name]:
        raise DamagedError(f"{name} fails its checksum")
    return data


def read_all_verified(folder: Path, manifest: Manifest) -> dict[FileName, bytes]:
    """Return all files that a manifest names, including files that this gateway does not use.

    Raises:
        DamagedError: a file is missing or damaged.
    """
    return {name: read_verified(folder, manifest, name) for name in manifest.checksums}


def read_served_verified(folder: Path, manifest: Manifest) -> dict[FileName, bytes]:
    """Return the files that an inspection uses: all that a manifest names, without the FAISS index.

    The index is a copy of the bank for other tools, twice as large.

    Raises:
        DamagedError: a file is missing or damaged.
    """
    return {name: read_verified(folder, manifest, name) for name in manifest.checksums if name != INDEX}


def spatial_weights_of(files: Mapping[FileName, bytes], manifest: Manifest) -> NDArray[np.float32] | None:
    """Return the spatial weights, float32 [h, w], from the verified files of a version, or None.

    Raises:
        DamagedError: the array has the wrong shape or dtype.
    """
    try:
        return read_weights(files[WEIGHTS], manifest.token_hw) if WEIGHTS in files else None
    except ValueError as error:
        raise DamagedError(str(error)) from error


def ok_maps_of(folder: Path, manifest: Manifest) -> OkMaps | None:
    """Return the leave-one-out maps. None for a version with one image or from an old gateway.

    Raises:
        DamagedError: the maps are missing or damaged.
    """
    names: tuple[FileName, ...] = (LEAVE_ONE_OUT, WEIGHTS)
    files = {name: read_verified(folder, manifest, name) for name in names if name in manifest.checksums}
    return ok_maps_in(files, manifest, spatial_weights_of(files, manifest))


def ok_maps_in(
    files: Mapping[FileName, bytes], manifest: Manifest, weights: NDArray[np.float32] | None
) -> OkMaps | None:
    """Return the leave-one-out maps among the verified files of a version; None where there are none.

    Args:
        files: verified files of the version.
        manifest: its manifest.
        weights: its spatial weights, float32 [h, w], or None.

    Raises:
        DamagedError: the maps have the wrong content.
    """
    if LEAVE_ONE_OUT not in files:
        return None
    try:
        distances = view_npz(files[LEAVE_ONE_OUT])["distances"]
    except (KeyError, ValueError) as error:
        raise DamagedError(f"{LEAVE_ONE_OUT}: {error}") from error
    frames = tuple(image.frame for image in manifest.images)
    return OkMaps(distances, manifest.token_hw, frames, weights, manifest.score_rule)
