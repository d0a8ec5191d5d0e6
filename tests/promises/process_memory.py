"""Memory of a process by the kernel's count."""

from pathlib import Path


def rss_mib(pid: int) -> float:
    """Return the current memory of a process."""
    return _status(pid, "VmRSS")


def peak_mib(pid: int) -> float:
    """Return the peak memory of a process."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
