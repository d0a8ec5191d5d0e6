"""Settings from the environment or a ``.env`` file, with the prefix ``GATEWAY_``."""

from pathlib import Path
from typing import Any

from pydantic import AliasChoices, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.setting_groups.decision import DecisionSettings
from gateway.setting_groups.engine import EngineSettings
from gateway.setting_groups.limits import LimitSettings
from gateway.setting_groups.monitoring import MonitoringSettings
from gateway.setting_groups.service import ServiceSettings
from gateway.setting_names import is_service_link, not_utf8, require_known_names

_CHECKOUT = Path(__file__).resolve().parent.parent
HOME = _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path.cwd()
"""Base of relative paths: the checkout, or the current folder if the gateway is installed without one."""


class Settings(MonitoringSettings, LimitSettings, DecisionSettings, EngineSettings, ServiceSettings, BaseSettings):
    """All settings, validated and frozen. A name ends with its unit: bytes, pixels or s (seconds).

    `names`, `effective` and the documentation list the fields of the last group first.
    """

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_",
        env_file=HOME / ".env",
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
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
