/** The mean of several pictures. */

import { pictureUrl } from "../api.js";

const SIDE = 512;
const MOST = 24;

/**
 * The address of the mean of OK images, drawn at the size of the first one; null without any.
 *
 * @param {import("../api.js").Roi} roi
 * @param {{id: string, label: string, width: number, height: number}[]} images
 * @returns {Promise<{src: string, width: number, height: number} | null>}
 */
export async function meanImage(roi, images) {
  const ok = images.filter((image) => image.label === "ok");
  if (!ok.length) return null;
  const { width, height } = ok[0];
  const step = Math.max(1, Math.floor(ok.length / MOST));
  const some = ok.filter((image, i) => i % step === 0 && image.width === width && image.height === height).slice(0, MOST);
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  const sums = new Float32Array(canvas.width * canvas.height * 4);
  for (const image of some) {
    const picture = new Image();
    picture.src = await pictureUrl(roi, `/images/${image.id}/thumbnail`, { side: SIDE });
    await picture.decode();
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < data.length; i += 1) sums[i] += data[i];
  }
  const mean = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < sums.length; i += 1) mean.data[i] = sums[i] / some.length;
  context.putImageData(mean, 0, 0);
  return { src: canvas.toDataURL("image/png"), width, height };
}
