"""``GET /metrics``."""

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import choose_encoder

from gateway.api.deps import ServicesDep
from gateway.monitoring import metrics

router = APIRouter(tags=["status"])


@router.get("/metrics", operation_id="metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def scrape(request: Request, services: ServicesDep) -> Response:
    """Return the metrics of every worker process, in Prometheus's text format or OpenMetrics, as the scraper asks."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    body = await to_thread.run_sync(lambda: encode(metrics.registry(services.roi_metrics)))
    return Response(body, headers={"Content-Type": content_type})
