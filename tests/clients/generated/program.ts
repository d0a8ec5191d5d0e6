import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Configuration, HeatmapMode, InspectApi, ResponseError, TeachApi, Verdict } from "./client";

const [basePath, folder, path] = process.argv.slice(2);
const image = (path: string) => new Blob([new Uint8Array(readFileSync(path))]);

async function main(): Promise<void> {
  const configuration = new Configuration({ basePath });
  const teach = new TeachApi(configuration);
  const inspect = new InspectApi(configuration);
  const roi = { roleId: "generated", roiId: "typescript", mmPerPx: 0.2 };
  const images = readdirSync(folder).sort().map((name) => image(join(folder, name)));
  const fit = await teach.fitOk({ ...roi, images });
  const calibration = await teach.calibrateNg({ calibrateRequest: roi });
  const answer = await inspect.infer({ ...roi, image: image(path), heatmap: HeatmapMode.None });
  const items = ["typescript", "never"].map((roi_id) => ({ role_id: "generated", roi_id, mm_per_px: 0.2 }));
  const batch = await inspect.inferBatch({ items: JSON.stringify(items), images: [image(path), image(path)] });
  let refused = 0;
  try {
    await inspect.infer({ ...roi, roiId: "never", image: image(path) });
  } catch (error) {
    refused = (error as ResponseError).response.status;
  }
  const verdicts = [answer.verdict, batch.results[0].verdict].map((each) => (each === Verdict.Ng ? "ng" : "other"));
  console.log(
    [fit.nOkTotal, calibration.threshold, answer.score, ...verdicts, batch.results[1].error?.code, refused].join(" "),
  );
}

main();
