"""A real Chromium, driven by Playwright: the installed one, else Debian's, unpacked under .cache."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.debian import PACKAGES_S, unpacked, updated

_WANTED = ("chromium", "fonts-liberation")
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><dir>{fonts}</dir><dir>/usr/share/fonts</dir><cachedir>{cache}</cachedir></fontconfig>
"""
_OPTIONS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
"""Without a sandbox, since root has none; with a camera that shows a test picture."""


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a headless Chromium. Skips the test where none is installed or can be fetched."""
    path, environment = _found()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(_OPTIONS), env=environment)
        try:
            yield started
        finally:
            started.close()


def _found() -> tuple[str, dict[str, str | float | bool]]:
    environment: dict[str, str | float | bool] = dict(os.environ)
    installed = shutil.which("chromium")
    if installed is not None:
        return installed, environment
    root = unpacked(*_missing_packages())
    libraries = sorted({path.parent for path in (root / "usr" / "lib").rglob("*.so*")})
    settings = root / "fonts.conf"
    settings.write_text(
        _FONTS.format(fonts=root / "usr" / "share" / "fonts", cache=root / "var" / "cache" / "fontconfig")
    )
    environment |= {"LD_LIBRARY_PATH": ":".join(map(str, libraries)), "FONTCONFIG_FILE": str(settings)}
    return str(root / "usr" / "lib" / "chromium" / "chromium"), environment


def _missing_packages() -> list[str]:
    """Names of Chromium and of what it needs and this machine lacks, as apt would install them."""
    if shutil.which("apt-get") is None:
        pytest.skip("Chromium is not installed, and this is not Debian")
    for attempt in (1, 2):
        command = ["apt-get", "--simulate", "--no-install-recommends", "install", *_WANTED]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PACKAGES_S)
        found = re.findall(r"^Inst (\S+)", done.stdout, re.MULTILINE)
        if done.returncode == 0 and found:
            return ["chromium", *sorted(name for name in found if name != "chromium")]
        if attempt == 1 and not updated():
            break
    pytest.skip(f"Chromium is not installed and cannot be fetched: {done.stderr.strip()[-200:]}")
