"""A tree of files around a models folder, to detect access outside of it."""

import hashlib
import os
from pathlib import Path

from gateway.store.ids import id_of_folder

OURS = ("models", "heatmaps", "cache", "state")
"""Folders in the tree that belong to the gateway."""
_AROUND = ("", "etc", "steel/pad", "site", "site/steel/pad", "site/steel/pad/versions", "site/modelsx")


def plant(root: Path) -> Path:
    """Write files where a path that leaves the models folder would lead. Return the folder that holds `OURS`."""
    site = root / "site"
    for name in OURS:
        (site / name).mkdir(parents=True)
    for folder in (root / name for name in _AROUND):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("passwd", "current", "calib.json", "steel.lock", ".probe"):
            (folder / name).write_bytes(hashlib.sha256(str(folder / name).encode()).digest())
    return site


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Return all files and folders outside of the gateway's own: inode, mode, links, size, time and content."""
    found: dict[str, tuple[object, ...]] = {}
    for name, folders, files in os.walk(root):
        folder = Path(name)
        if folder == root / "site":
            folders[:] = [each for each in folders if each not in OURS]
        for path in (folder, *(folder / each for each in files)):
            said = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            times = (said.st_mtime_ns,) if path.is_file() else ()
            found[str(path)] = (said.st_ino, said.st_mode, said.st_nlink, said.st_size, *times, content)
    return found


def strangers(models_dir: Path) -> list[str]:
    """Return the entries of a models folder that no valid ids lead to."""
    recipes = list((models_dir / ".recipes").glob("*"))
    roles = [path for path in models_dir.iterdir() if not path.name.startswith(".")]
    roles += [path for recipe in recipes for path in recipe.iterdir()]
    rois = [path for role in roles for path in role.iterdir()]
    return [str(path) for path in (*recipes, *roles, *rois) if id_of_folder(path.name) is None or path.is_symlink()]
