"""``python -m bench.unobserved``: a gateway without metrics, drift and log lines, to measure their cost."""

import sys
from typing import Any

from gateway.api.middleware import observe
from gateway.monitoring.inspection_log import Watch


async def _pass_on(self: Any, scope: Any, receive: Any, send: Any) -> None:
    await self._app(scope, receive, send)


def main() -> int:
    """Remove the observers, then serve."""
    observe.ObserveMiddleware.__call__ = _pass_on  # type: ignore[method-assign]
    Watch.inspected = lambda *_, **__: None  # type: ignore[method-assign]
    from gateway.images.appearance import Look
    from gateway.inspection import pipeline

    vars(pipeline)["look"] = lambda _: Look(0.0, 0.0)
    from gateway.__main__ import main as serve

    return serve()


if __name__ == "__main__":
    sys.exit(main())
