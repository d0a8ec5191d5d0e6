"""Compile and run C# with Mono: the installed one, or Debian's packages unpacked under .cache."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.debian import unpacked

_PACKAGES = (
    "mono-runtime-sgen",
    "mono-runtime-common",
    "mono-mcs",
    "libmono-corlib4.5-dll",
    "libmono-microsoft-csharp4.0-cil",
    "libmono-security4.0-cil",
    "libmono-system4.0-cil",
    "libmono-system-componentmodel-dataannotations4.0-cil",
    "libmono-system-configuration4.0-cil",
    "libmono-system-core4.0-cil",
    "libmono-system-data4.0-cil",
    "libmono-system-enterpriseservices4.0-cil",
    "libmono-system-net-http4.0-cil",
    "libmono-system-numerics4.0-cil",
    "libmono-system-runtime-serialization4.0-cil",
    "libmono-system-security4.0-cil",
    "libmono-system-servicemodel-internals0.0-cil",
    "libmono-system-transactions4.0-cil",
    "libmono-system-web4.0-cil",
    "libmono-system-xml4.0-cil",
    "libmono-system-xml-linq4.0-cil",
)


class Mono:
    """A C# compiler and a runtime. Skip the test if it is neither installed nor available."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        mono, mcs = shutil.which("mono"), shutil.which("mcs")
        if mono is not None and mcs is not None:
            self._mono, self._mcs = [mono], [mcs]
            return
        root = unpacked(*_PACKAGES)
        self._environment["MONO_CFG_DIR"] = str(root / "etc")
        self._mono = [str(root / "usr/bin/mono-sgen"), "--config", str(root / "etc/mono/config")]
        self._mcs = [*self._mono, str(root / "usr/lib/mono/4.5/mcs.exe")]

    def compile(self, out: Path, *sources: Path | str, references: tuple[str, ...] = (), options: tuple[str, ...] = ()):
        """Compile sources into a .dll or .exe. Warnings do not fail."""
        target = "library" if out.suffix == ".dll" else "exe"
        named = [f"-r:{name}" for name in ("System.Net.Http.dll", *references)]
        command = [*self._mcs, "-langversion:latest", f"-target:{target}", f"-out:{out}", *named, *options]
        done = self._run([*command, *map(str, sources)], out.parent)
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, program: Path, *arguments: str) -> str:
        """Return the output of a program."""
        done = self._run([*self._mono, str(program), *arguments], program.parent)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _run(self, command: list[str], cwd: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=cwd,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
