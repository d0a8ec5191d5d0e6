/** The fine detail of the next fit: the tiles of an image, and the input size of the network. */

import { call } from "../api.js";
import { t, typedNumber } from "../i18n.js";
import { html, useEffect, useState } from "../vendor/htm-preact.js";

/** Limit of the limit of tiles, as the gateway has it. */
export const MOST_TILES = 64;

/**
 * The tiles that a fit asks for: empty for those of the ROI. Null where the typed limit is not valid.
 *
 * @param {import("../parts/draft.js").Draft} draft
 */
export function tilesAsked({ tiles, most_tiles }) {
  if (tiles !== "most") return tiles;
  const most = typedNumber(most_tiles);
  return most !== null && Number.isInteger(most) && most >= 1 && most <= MOST_TILES ? String(most) : null;
}

/** Whether an image is cut at all. @param {[number, number]} tiles rows and columns */
export const isCut = ([rows, columns]) => rows * columns > 1;

/**
 * @param {{detail: any, draft: import("../parts/draft.js").Draft,
 *   setDraft: (change: Partial<import("../parts/draft.js").Draft>) => void}} props
 */
export function FineDetail({ detail, draft, setDraft }) {
  const [open, setOpen] = useState(draft.tiles !== "" || draft.input_size !== "");
  const [sizes, setSizes] = useState(/** @type {number[]} */ ([]));
  useEffect(() => {
    if (open) call("/ready").then((ready) => setSizes(ready.input_sizes), () => {});
  }, [open]);

  const grid = detail && gridText(detail.tiles);
  return html`
    <details class="fine" open=${open} onToggle=${(/** @type {any} */ event) => setOpen(event.currentTarget.open)}>
      <summary>${t("fine_detail")} ${grid && html`<span class="quiet">· ${grid}</span>`}</summary>
      <div class="row">
        <label class="field grow">${t("tiles")}
          <select name="tiles" value=${draft.tiles} onChange=${(/** @type {any} */ event) => setDraft({ tiles: event.target.value })}>
            ${grid
              ? html`<option value="">${t("as_learned", { what: grid })}</option><option value="auto">${t("tiles_auto")}</option>`
              : html`<option value="">${t("tiles_auto")}</option>`}
            <option value="1">${t("tiles_off")}</option>
            <option value="most">${t("tiles_most")}</option>
          </select>
        </label>
        ${draft.tiles === "most" &&
        html`<label class="field short">${t("most_tiles")}
          <input name="most_tiles" inputmode="numeric" value=${draft.most_tiles} aria-invalid=${tilesAsked(draft) === null}
            onInput=${(/** @type {any} */ event) => setDraft({ most_tiles: event.target.value })} /></label>`}
      </div>
      <p class="quiet">${t("tiles_text")}</p>
      <${InputSize} sizes=${sizes} learned=${detail?.input_size ?? null} isNew=${!detail} draft=${draft} setDraft=${setDraft} />
      ${detail && html`<p class="quiet">${t("reads_again")}</p>`}
    </details>
  `;
}

/** @param {[number, number]} tiles rows and columns */
const gridText = ([rows, columns]) => (isCut([rows, columns]) ? t("tiles_grid", { rows, columns }) : t("shape_none"));

/**
 * Shown where there is a choice: several sizes, or one that is not that of the ROI.
 *
 * @param {{sizes: number[], learned: number | null, isNew: boolean, draft: import("../parts/draft.js").Draft,
 *   setDraft: (change: Partial<import("../parts/draft.js").Draft>) => void}} props
 */
function InputSize({ sizes, learned, isNew, draft, setDraft }) {
  const isGone = sizes.length > 0 && learned !== null && !sizes.includes(learned);
  if (sizes.length < 2 && !isGone && draft.input_size === "") return null;
  const chosen = draft.input_size === "" ? [] : [Number(draft.input_size)];
  const offered = [...new Set([...sizes, ...chosen])].sort((a, b) => a - b);
  const what = learned === null ? t("input_size_default") : t("n_pixels", { n: learned });
  return html`
    <label class="field">${t("input_size")}
      <select name="input_size" value=${draft.input_size}
        onChange=${(/** @type {any} */ event) => setDraft({ input_size: event.target.value })}>
        <option value="">${isNew ? what : t("as_learned", { what })}</option>
        ${offered.map((size) => html`<option key=${size} value=${String(size)}>${t("n_pixels", { n: size })}</option>`)}
      </select>
    </label>
    <p class="quiet">${t("input_size_text")}</p>
  `;
}
