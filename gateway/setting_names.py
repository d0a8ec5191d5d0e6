"""Names of settings in the environment and in ``.env``: unknown ones, and those that Kubernetes sets."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

log = logging.getLogger(__name__)

PREFIX = "GATEWAY_"
_OTHERS = frozenset({"GATEWAY_EXTRAS", "GATEWAY_PUBLISH"})
"""Names with the same prefix that scripts and docker/compose.yaml read."""
_FORMER = {"GATEWAY_BANK_CACHE_ENTRIES": "GATEWAY_BANK_CACHE_BYTES alone limits the loaded versions"}
"""Settings of earlier releases, with what replaces them. They give a warning and stop nothing."""
_NEAR = 0.85
_LINK = re.compile(r"(tcp|udp|sctp)://")
# Kubernetes describes each service NAME of a namespace in every container, as NAME_SERVICE_HOST, NAME_PORT and so on.
_SERVICE = re.compile(
    r"GATEWAY(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


class SettingsError(ValueError):
    """Settings that cannot be used. The message is one line."""


def is_service_link(name: str, value: str | None) -> bool:
    """Return whether Kubernetes set a variable for a service, such as ``GATEWAY_PORT=tcp://10.0.0.1:8080``.

    Args:
        name: name of an environment variable with the prefix ``GATEWAY_``.
        value: its value.
    """
    return value is not None and _LINK.match(value) is not None and _SERVICE.fullmatch(name.upper()) is not None


def environment_warnings(environment: Mapping[str, str], known: Collection[str]) -> list[str]:
    """Return warnings about variables with the prefix ``GATEWAY_`` that are not settings.

    Args:
        environment: the variables of the process.
        known: the names of all settings.
    """
    names = [name for name in sorted(environment) if name.upper().startswith(PREFIX) and name.upper() not in _OTHERS]
    links = [
        name
        for name in names
        if is_service_link(name, environment[name]) or (name.upper() not in known and _SERVICE.fullmatch(name.upper()))
    ]
    warnings = []
    if links:
        shown = f"{links[0]}={environment[links[0]]}"
        warnings.append(
            f"ignored {len(links)} environment variables that Kubernetes sets for a service, such as {shown[:100]}: "
            "they are not settings. Set enableServiceLinks: false in the pod to remove them"
        )
    unknown = [name for name in names if name not in links and name.upper() not in known]
    return [*warnings, *(f"ignored the environment variable {_described(name, known)}" for name in unknown)]


def require_known_names(names: Iterable[str], known: Collection[str], file: str) -> None:
    """Refuse unknown names of settings in a ``.env`` file.

    Names without the prefix ``GATEWAY_`` are for other programs that read the same file, unless they are misspelled
    names of settings.

    Args:
        names: the names in the file.
        known: the names of all settings.
        file: the file, for the message.

    Raises:
        SettingsError: names the unknown names and the nearest settings.
    """
    upper = [name.upper() for name in names]
    if any("\0" in name for name in upper):
        raise not_utf8(file)
    unknown = [
        name
        for name in upper
        if name not in known
        and name not in _OTHERS
        and name not in _FORMER
        and (name.startswith(PREFIX) or get_close_matches(name, known, 1, _NEAR))
    ]
    if unknown:
        raise SettingsError(f"{file}: {'; '.join(_described(name, known) for name in unknown[:5])}")
    for name in upper:
        if name in _FORMER:
            log.warning("%s: ignored %s", file, _described(name, known))


def not_utf8(file: str) -> SettingsError:
    """Return the error of a file in another encoding, such as the UTF-16 that Windows PowerShell writes."""
    return SettingsError(f"{file}: the file is not UTF-8 text (UTF-16?); save it as UTF-8")


def _described(name: str, known: Collection[str]) -> str:
    if name.upper() in _FORMER:
        return f"{name}: an earlier release had this setting; {_FORMER[name.upper()]}"
    near = get_close_matches(name.upper(), known, 1, 0.6)
    return f"{name[:80]}: no setting has this name" + (f"; did you mean {near[0]}?" if near else "")
