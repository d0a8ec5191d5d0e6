/** One stored image at full size. */

import { level, size, t, time } from "../i18n.js";
import { Dialog } from "../parts/dialogs.js";
import { usePicture } from "../parts/picture.js";
import { Viewer } from "../parts/viewer.js";
import { html } from "../vendor/htm-preact.js";

export const SIDE = 1600;

/**
 * @param {{roi: import("../api.js").Roi, image: any, images: any[], show: (image: any) => void}} props
 */
export function Large({ roi, image, images, show }) {
  const { src } = usePicture(roi, `/images/${image.id}/thumbnail`, { side: SIDE });
  const at = images.findIndex((each) => each.id === image.id);
  const move = (/** @type {number} */ by) => images[at + by] && show(images[at + by]);
  const key = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "ArrowRight") move(1);
    else if (event.key === "ArrowLeft") move(-1);
  };
  return html`
    <${Dialog} title=${image.file_name} wide close=${() => show(null)}>
      <div class="large" onKeyDown=${key}>
        <${Viewer} src=${src} width=${image.width} height=${image.height} label=${image.file_name} />
        <p class="facts">
          <span class=${`badge ${image.label}`}>${image.label.toUpperCase()}</span>
          <span>${image.width} × ${image.height} px</span>
          <span>${size(image.n_bytes)}</span>
          ${image.created_at && html`<span>${time(image.created_at)}</span>`}
          <span>${t("peak")} ${level(image.peak)}</span>
          <span>${t("score")} ${level(image.score)}</span>
        </p>
        <p class="buttons">
          <button disabled=${at <= 0} onClick=${() => move(-1)}>← ${t("previous")}</button>
          <button disabled=${at < 0 || at + 1 >= images.length} onClick=${() => move(1)}>${t("next")} →</button>
          <button class="primary" onClick=${() => show(null)}>${t("close")}</button>
        </p>
      </div>
    <//>
  `;
}
