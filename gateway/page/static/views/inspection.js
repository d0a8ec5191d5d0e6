/** One inspected image: heatmap, contours, figures, and the OK patch that it was compared with. */

import { level, number, t } from "../i18n.js";
import { VerdictBadge, reasonOf } from "../parts/verdict.js";
import { Viewer } from "../parts/viewer.js";
import { html, useEffect, useLayoutEffect, useMemo, useState } from "../vendor/htm-preact.js";

const HIDE = "h";
/** Colours of the heatmap, from no distance to the largest: dark violet, orange, yellow. */
const COLOURS = [[13, 8, 80], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]];

/**
 * The heatmap in colour, clear where the distance is small.
 *
 * @param {string} base64 grey PNG
 * @param {number} floor grey value that is clear
 * @returns {Promise<string>}
 */
async function coloured(base64, floor) {
  const picture = new Image();
  picture.src = `data:image/png;base64,${base64}`;
  await picture.decode();
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.drawImage(picture, 0, 0);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const { data } = image;
  for (let i = 0; i < data.length; i += 4) {
    const share = Math.min(1, Math.max(0, (data[i] - floor) / (0.6 * (255 - floor))));
    const place = share * (COLOURS.length - 1);
    const from = COLOURS[Math.floor(place)];
    const to = COLOURS[Math.min(COLOURS.length - 1, Math.floor(place) + 1)];
    for (let c = 0; c < 3; c += 1) data[i + c] = from[c] + (place - Math.floor(place)) * (to[c] - from[c]);
    data[i + 3] = share === 0 ? 0 : Math.min(255, 60 + 700 * share);
  }
  context.putImageData(image, 0, 0);
  return canvas.toDataURL("image/png");
}

/** @param {{answer: any, name: string, src: string | null}} props `src` is null where the browser cannot show the file */
export function Inspection({ answer, name, src }) {
  const [opacity, setOpacity] = useState(55);
  const [isHidden, setHidden] = useState(false);
  const [heatmap, setHeatmap] = useState(/** @type {string | null} */ (null));
  const [width, height] = answer.image_size;

  useEffect(() => {
    let isWanted = true;
    // Clear far below the threshold: the eye is led to what decides.
    const floor = Math.min(200, (255 * 0.8 * (answer.peak_threshold ?? answer.peak ?? 0)) / answer.heatmap_max);
    if (answer.heatmap_png_base64) {
      coloured(answer.heatmap_png_base64, floor).then((found) => isWanted && setHeatmap(found), () => {});
    }
    return () => {
      isWanted = false;
    };
  }, [answer]);
  // At once, and not after the next picture: a key that is pressed as soon as the contours are there counts.
  useLayoutEffect(() => {
    const key = (/** @type {any} */ event) => {
      const isTyping = /^(input|select|textarea)$/i.test(event.target.tagName) && event.target.type !== "range";
      if (event.key.toLowerCase() === HIDE && !isTyping) setHidden(event.type === "keydown");
    };
    addEventListener("keydown", key);
    addEventListener("keyup", key);
    return () => {
      removeEventListener("keydown", key);
      removeEventListener("keyup", key);
    };
  }, []);
  const contours = useMemo(
    () => answer.regions.map((/** @type {any} */ region) => region.contour.map((/** @type {number[]} */ [x, y]) => `${x + 0.5},${y + 0.5}`).join(" ")),
    [answer],
  );
  const patch = answer.explanation?.patch.box;
  const share = isHidden ? 0 : opacity / 100;
  return html`
    <div class="inspection">
      <div class="grow stack">
        <${Viewer} src=${src ?? heatmap} width=${width} height=${height} label=${name}>
          ${src && heatmap && html`<image href=${heatmap} x="0" y="0" width=${width} height=${height} preserveAspectRatio="none" opacity=${share} />`}
          ${!isHidden && contours.map((/** @type {string} */ points) => html`<polygon class="contour" points=${points} />`)}
          ${!isHidden && patch && html`<rect class="patch" x=${patch[0]} y=${patch[1]} width=${patch[2]} height=${patch[3]} />`}
        <//>
        <div class="row">
          <label class="inline grow">${t("heatmap")}
            <input type="range" name="opacity" min="0" max="100" value=${opacity}
              onInput=${(/** @type {any} */ event) => setOpacity(Number(event.target.value))} />
          </label>
          <button aria-pressed=${isHidden} onPointerDown=${() => setHidden(true)} onPointerUp=${() => setHidden(false)}
            onPointerLeave=${() => setHidden(false)}>${t("hold_to_hide")} <kbd>H</kbd></button>
        </div>
        ${!src && html`<p class="quiet">${t("not_drawable")}</p>`}
      </div>
      <div class="facts-side">
        <p class="verdict"><${VerdictBadge} verdict=${answer.verdict} large /></p>
        <p>${reasonOf(answer)}</p>
        <dl>
          <dt>${t("peak")}</dt><dd>${level(answer.peak)} <span class="quiet">/ ${level(answer.peak_threshold)}</span></dd>
          <dt>${t("score")}</dt><dd>${level(answer.score)} <span class="quiet">/ ${level(answer.threshold)}</span></dd>
          ${answer.review_threshold !== null && html`<dt>${t("review_from")}</dt><dd>${level(answer.review_threshold)}</dd>`}
          <dt>${t("version")}</dt><dd>${answer.version}</dd>
        </dl>
        <h3>${t("regions")} <span class="count">${answer.regions.length}</span></h3>
        ${answer.regions.length > 0 &&
        html`<ol class="regions">
          ${answer.regions.slice(0, 8).map(
            (/** @type {any} */ region) => html`<li><strong>${number(region.area_mm2, 2)} mm²</strong> <span class="quiet">${region.bbox[2]} × ${region.bbox[3]} px</span></li>`,
          )}
        </ol>`}
        ${answer.explanation && html`<${Explanation} explanation=${answer.explanation} />`}
      </div>
    </div>
  `;
}

/** @param {{explanation: any}} props */
function Explanation({ explanation }) {
  const crop = (/** @type {any} */ patch, /** @type {string} */ text) => {
    if (!patch.crop) return html`<figure><figcaption>${text}</figcaption></figure>`;
    const [x, y, w, h] = patch.crop.box;
    const [px, py, pw, ph] = patch.box;
    return html`
      <figure>
        <div class="crop-picture">
          <img src=${`data:image/png;base64,${patch.crop.png_base64}`} alt=${text} />
          <svg viewBox=${`${x} ${y} ${w} ${h}`} aria-hidden="true"><rect class="patch" x=${px} y=${py} width=${pw} height=${ph} /></svg>
        </div>
        <figcaption>${text}</figcaption>
      </figure>
    `;
  };
  return html`
    <h3>${t("compared")}</h3>
    <div class="crops">${crop(explanation.patch, t("this_part"))} ${crop(explanation.ok_patch, t("nearest_ok"))}</div>
    <p class="quiet">${t("distance", { distance: level(explanation.distance) })} · ${explanation.ok_patch.file_name}</p>
  `;
}
