"""The same for the generated Python client: `program.py URL FOLDER IMAGE`."""

import asyncio
import json
import sys
from pathlib import Path

from patchcore_generated import ApiClient, Configuration, InspectApi, TeachApi
from patchcore_generated.exceptions import ApiException
from patchcore_generated.models import CalibrateRequest, HeatmapMode, Verdict


async def main(url: str, images: list[tuple[str, bytes]], image: tuple[str, bytes]) -> None:
    async with ApiClient(Configuration(host=url)) as client:
        teach, inspect = TeachApi(client), InspectApi(client)
        fit = await teach.fit_ok("generated", "python", 0.2, images=images)
        request = CalibrateRequest(role_id="generated", roi_id="python", mm_per_px=0.2)
        calibration = await teach.calibrate_ng(request)
        answer = await inspect.infer("generated", "python", 0.2, image, heatmap=HeatmapMode.NONE)
        items = [{"role_id": "generated", "roi_id": roi, "mm_per_px": 0.2} for roi in ("python", "never")]
        batch = await inspect.infer_batch(json.dumps(items), [image, image])
        refused = 0
        try:
            await inspect.infer("generated", "never", 0.2, image)
        except ApiException as error:
            refused = error.status
        verdicts = ["ng" if each == Verdict.NG else "other" for each in (answer.verdict, batch.results[0].verdict)]
        code = batch.results[1].error.code
    print(fit.n_ok_total, calibration.threshold, answer.score, *verdicts, code, refused)  # noqa: T201


url, folder, path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
ok = [(each.name, each.read_bytes()) for each in sorted(folder.iterdir())]
asyncio.run(main(url, ok, (path.name, path.read_bytes())))
