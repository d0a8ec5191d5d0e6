/** Millimetres per pixel, from a known length in an image. */

import { number, t, typedNumber } from "../i18n.js";
import { Dialog } from "../parts/dialogs.js";
import { usePicture } from "../parts/picture.js";
import { Viewer } from "../parts/viewer.js";
import { html, useState } from "../vendor/htm-preact.js";
import { SIDE } from "./teach_large.js";

/**
 * @param {{roi: import("../api.js").Roi, images: any[], close: () => void, done: (mm_per_px: number) => void}} props
 */
export function Measure({ roi, images, close, done }) {
  const [at, setAt] = useState(0);
  const image = images[at];
  const { src } = usePicture(roi, `/images/${image.id}/thumbnail`, { side: SIDE });
  const [ends, setEnds] = useState({
    a: { x: image.width * 0.2, y: image.height / 2 },
    b: { x: image.width * 0.8, y: image.height / 2 },
  });
  const [held, setHeld] = useState(/** @type {"a" | "b"} */ ("b"));
  const [length, setLength] = useState("");
  const pixels = Math.hypot(ends.a.x - ends.b.x, ends.a.y - ends.b.y);
  const mm = typedNumber(length);
  const scale = mm && mm > 0 && pixels > 1 ? Number((mm / pixels).toPrecision(5)) : null;

  const point = (/** @type {number} */ x, /** @type {number} */ y, /** @type {string} */ phase) => {
    const to = { x: Math.min(image.width, Math.max(0, x)), y: Math.min(image.height, Math.max(0, y)) };
    const far = (/** @type {{x: number, y: number}} */ end) => Math.hypot(end.x - x, end.y - y);
    const end = phase === "down" ? (far(ends.a) < far(ends.b) ? "a" : "b") : held;
    if (phase === "down") setHeld(end);
    if (phase !== "up") setEnds({ ...ends, [end]: to });
  };
  const coordinate = (/** @type {"a" | "b"} */ end, /** @type {"x" | "y"} */ axis) => html`
    <label class="field short">${t(end === "a" ? "from" : "to")} ${axis}
      <input type="number" min="0" step="1" value=${Math.round(ends[end][axis])}
        onInput=${(/** @type {any} */ event) => setEnds({ ...ends, [end]: { ...ends[end], [axis]: Number(event.target.value) } })} />
    </label>
  `;
  const size = Math.max(image.width, image.height) / 90;
  return html`
    <${Dialog} title=${t("measure_title")} wide close=${close}>
      <p>${t("measure_text")}</p>
      <${Viewer} src=${src} width=${image.width} height=${image.height} label=${image.file_name} onPoint=${point}>
        <line class="measure" x1=${ends.a.x} y1=${ends.a.y} x2=${ends.b.x} y2=${ends.b.y} />
        <circle class="handle" cx=${ends.a.x} cy=${ends.a.y} r=${size} />
        <circle class="handle" cx=${ends.b.x} cy=${ends.b.y} r=${size} />
      <//>
      <div class="row">
        ${coordinate("a", "x")} ${coordinate("a", "y")} ${coordinate("b", "x")} ${coordinate("b", "y")}
        <label class="field">${t("length_mm")}
          <input name="length" inputmode="decimal" value=${length} onInput=${(/** @type {any} */ event) => setLength(event.target.value)} />
        </label>
        <p class="figure">${number(pixels, 1)} px ${scale !== null && html`→ <strong>${number(scale, 5)} mm/px</strong>`}</p>
      </div>
      <p class="buttons">
        <button disabled=${images.length < 2} onClick=${() => setAt((at + 1) % images.length)}>${t("another_image")}</button>
        <span class="grow"></span>
        <button onClick=${close}>${t("cancel")}</button>
        <button class="primary" disabled=${scale === null} onClick=${() => done(/** @type {number} */ (scale))}>${t("use")}</button>
      </p>
    <//>
  `;
}
