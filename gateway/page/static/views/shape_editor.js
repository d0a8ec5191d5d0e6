/** Draw where the part is, on the mean of the OK images. */

import { t } from "../i18n.js";
import { Dialog } from "../parts/dialogs.js";
import { meanImage } from "../parts/mean.js";
import { DrawnShape, KEYS, KINDS, firstShape, handlesOf, moved } from "../parts/shapes.js";
import { Viewer } from "../parts/viewer.js";
import { html, useEffect, useState } from "../vendor/htm-preact.js";

/** @typedef {import("../i18n.js").Text} Text */

/**
 * @param {{roi: import("../api.js").Roi, images: any[], shape: any, close: () => void, done: (shape: any) => void}} props
 */
export function ShapeEditor({ roi, images, shape: given, close, done }) {
  const first = images.find((image) => image.label === "ok") ?? images[0];
  const [mean, setMean] = useState({ src: /** @type {string | null} */ (null), width: first.width, height: first.height });
  const [shape, setShape] = useState(
    given && { cx: first.width / 2, cy: first.height / 2, ...(given.kind === "rect" ? { angle: 0 } : {}), ...given },
  );
  const [held, setHeld] = useState("centre");
  useEffect(() => {
    meanImage(roi, images).then((found) => found && setMean(found), () => {});
  }, []);

  const size = Math.max(mean.width, mean.height) / 70;
  const point = (/** @type {number} */ x, /** @type {number} */ y, /** @type {string} */ phase) => {
    let name = held;
    if (phase === "down") {
      const far = (/** @type {any} */ handle) => Math.hypot(handle.x - x, handle.y - y);
      name = handlesOf(shape, 3 * size).sort((a, b) => far(a) - far(b))[0].name;
      setHeld(name);
    }
    if (phase !== "up") setShape(moved(shape, name, x, y));
  };
  const kind = (/** @type {string | null} */ wanted) => html`
    <button class=${(shape?.kind ?? null) === wanted ? "on" : ""} aria-pressed=${(shape?.kind ?? null) === wanted}
      onClick=${() => setShape(wanted && firstShape(wanted, mean.width, mean.height))}>
      ${t(/** @type {Text} */ (`shape_${wanted ?? "none"}`))}
    </button>
  `;
  return html`
    <${Dialog} title=${t("shape_title")} wide close=${close}>
      <p>${t("shape_text")}</p>
      <div class="segments" role="group" aria-label=${t("shape")}>${kind(null)} ${KINDS.map(kind)}</div>
      <${Viewer} src=${mean.src} width=${mean.width} height=${mean.height} label=${t("mean_image")} onPoint=${shape ? point : undefined}>
        ${shape && html`<${DrawnShape} shape=${shape} size=${size} />`}
      <//>
      <div class="row">
        ${shape &&
        KEYS[shape.kind].map(
          (name) => html`
            <label class="field short" key=${name}>${t(/** @type {Text} */ (`shape_${name}`))}
              <input type="number" step="1" name=${name} value=${shape[name]}
                onInput=${(/** @type {any} */ event) => setShape({ ...shape, [name]: Number(event.target.value) })} />
            </label>
          `,
        )}
      </div>
      <p class="buttons">
        <span class="grow quiet">${t("mean_of_ok")}</span>
        <button onClick=${close}>${t("cancel")}</button>
        <button class="primary" onClick=${() => done(shape)}>${t("use")}</button>
      </p>
    <//>
  `;
}
