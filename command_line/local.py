"""A gateway in this process, for `--local`: the application that a gateway serves, without a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from patchcore_client import AsyncPatchcoreClient, Retries
from pydantic import ValidationError

from command_line.exits import CommandError

_QUEUE_S = 3600.0
"""Nobody else waits, so that no image is refused because others are before it."""

_SETTINGS_HINT = "Correct the environment or .env; `patchcore doctor` checks them."


@asynccontextmanager
async def local_client(models_dir: Path, recipe: str | None) -> AsyncIterator[AsyncPatchcoreClient]:
    """Start a gateway over a models folder (absolute), and yield its client.

    Requests take the same way as at a gateway, so answers, locks and the audit trail are the same. Gateways may use the
    folder at the same time. All other settings are those of the environment and of `.env`; keys do not apply.

    Raises:
        CommandError: a setting is invalid, or the engine cannot start.
    """
    try:
        from gateway.app import create_app  # seconds of imports, for this option alone
        from gateway.monitoring import logs
        from gateway.settings import Settings, setting_problems

        settings = Settings(
            models_dir=models_dir,
            api_keys=None,
            api_keys_file=None,
            max_queue_s=_QUEUE_S,
            log_level="warning",
            log_format="console",
        )
        logs.configure(settings)
        app = create_app(settings)
    except ValidationError as error:
        raise CommandError("; ".join(setting_problems(error)), _SETTINGS_HINT) from error
    except (ValueError, RuntimeError) as error:
        raise CommandError(str(error), _SETTINGS_HINT) from error
    async with app.router.lifespan_context(app):
        status = await app.state.services.engine.ready()
        if not status.ready:
            raise CommandError(f"the engine cannot start: {status.reason}", "`patchcore doctor` says what is missing.")
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = AsyncPatchcoreClient(
            "http://127.0.0.1", "", recipe_id=recipe, transport=transport, retries=Retries(attempts=1)
        )
        async with client:
            yield client
