"""API keys made by the gateway's command."""

import json
import subprocess
import sys
from pathlib import Path


def make_key(name: str, scope: str, *allow: str) -> tuple[str, dict]:
    """Return a key and its entry for GATEWAY_API_KEYS."""
    patterns = [part for each in allow for part in ("--allow", each)]
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "key", "--name", name, "--scope", scope, *patterns],
        cwd=Path(__file__).resolve().parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    key, entry = done.stdout.splitlines()
    return key, json.loads(entry)


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}
