/** Learn: the scale, the shape, and the fit with its progress. */

import { fit, ofRoi, sleep } from "../api.js";
import { number, percent, t, typedNumber } from "../i18n.js";
import { ErrorBox, Warnings, notify } from "../parts/dialogs.js";
import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { Measure } from "./measure.js";
import { ShapeEditor } from "./shape_editor.js";
import { FineDetail, MOST_TILES, isCut, tilesAsked } from "./teach_fine_detail.js";

/** @typedef {import("../i18n.js").Text} Text */

const ASK_MS = 500;

/**
 * @param {{roi: import("../api.js").Roi, detail: any, images: any[], draft: import("../parts/draft.js").Draft,
 *   setDraft: (change: any) => void, done: () => Promise<void>}} props
 */
export function Learning({ roi, detail, images, draft, setDraft, done }) {
  const [open, setOpen] = useState("");
  const [exclude, setExclude] = useState(false);
  const [running, setRunning] = useState(/** @type {any} */ (null));
  const [result, setResult] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));

  const ok = images.filter((image) => image.label === "ok" && !image.excluded);
  const fresh = ok.filter((image) => !image.learned).length;
  const gone = images.filter((image) => image.label === "ng" && image.learned).length;
  const scale = typedNumber(draft.mm_per_px);
  const tiles = tilesAsked(draft);

  /** Follow a fit, also one that somebody else started, until `isOver`. */
  const follow = async (/** @type {() => boolean} */ isOver) => {
    for (;;) {
      await sleep(ASK_MS);
      if (isOver()) return;
      const now = await ofRoi(roi, "/fit").catch(() => null);
      if (isOver()) return;
      if (now) setRunning(now);
    }
  };
  useEffect(() => {
    let isGone = false;
    ofRoi(roi, "/fit").then(
      async (now) => {
        if (!now.running) return;
        setRunning(now);
        let last = now;
        while (!isGone && last.running) {
          await sleep(ASK_MS);
          last = await ofRoi(roi, "/fit").catch(() => ({ running: false }));
          if (!isGone && last.running) setRunning(last);
        }
        if (isGone) return;
        setRunning(null);
        await done();
      },
      () => {},
    );
    return () => {
      isGone = true;
    };
  }, []);

  const learn = async () => {
    setError(null);
    setResult(null);
    setRunning({ stage: "wait" });
    let isOver = false;
    follow(() => isOver);
    try {
      const answer = await fit(roi, {
        mm_per_px: /** @type {number} */ (scale),
        shape: draft.shape,
        exclude_suspects: exclude,
        tiles: /** @type {string} */ (tiles),
        input_size: draft.input_size,
      });
      setResult(answer);
      notify(t("fit_done", { version: answer.version }));
    } catch (failure) {
      setError(failure);
    }
    isOver = true;
    setRunning(null);
    await done();
  };
  return html`
    <section class="panel">
      <h2>${t("learn")}</h2>
      <div class="row">
        <label class="field grow">${t("mm_per_px")}
          <input name="mm_per_px" inputmode="decimal" value=${draft.mm_per_px} aria-invalid=${draft.mm_per_px !== "" && !(scale && scale > 0)}
            onInput=${(/** @type {any} */ event) => setDraft({ mm_per_px: event.target.value })} />
        </label>
        <button disabled=${!images.length} onClick=${() => setOpen("measure")}>${t("measure")}</button>
      </div>
      <div class="row">
        <span class="grow">${t("shape")}: <strong>${t(/** @type {Text} */ (`shape_${draft.shape?.kind ?? "none"}`))}</strong></span>
        <button disabled=${!images.length} onClick=${() => setOpen("shape")}>${t("draw")}</button>
      </div>
      <label class="check">
        <input type="checkbox" checked=${exclude} onChange=${(/** @type {any} */ event) => setExclude(event.target.checked)} />
        ${t("exclude_suspects")}
      </label>
      ${detail?.detector !== "student-teacher" && html`<${FineDetail} detail=${detail} draft=${draft} setDraft=${setDraft} />`}
      <p class="buttons">
        <button class="primary" disabled=${running || !ok.length || !scale || scale <= 0 || tiles === null} onClick=${learn}>
          ${t("learn_n", { n: ok.length })}
        </button>
      </p>
      ${!running && ok.length > 0 && !scale && html`<p class="quiet">${t("needs_scale")}</p>`}
      ${!running && tiles === null && html`<p class="problem">${t("needs_tiles", { most: MOST_TILES })}</p>`}
      ${!running && detail && fresh + gone > 0 && html`<p class="quiet">${t("fit_changes", { fresh, gone })}</p>`}
      ${running && html`<${Running} now=${running} />`}
      ${error && html`<${ErrorBox} error=${error} />`}
      ${result && html`<${Result} result=${result} />`}
      ${open === "measure" &&
      html`<${Measure} roi=${roi} images=${images} close=${() => setOpen("")}
        done=${(/** @type {number} */ value) => (setDraft({ mm_per_px: String(value) }), setOpen(""))} />`}
      ${open === "shape" &&
      html`<${ShapeEditor} roi=${roi} images=${images} shape=${draft.shape} close=${() => setOpen("")}
        done=${(/** @type {any} */ shape) => (setDraft({ shape }), setOpen(""))} />`}
    </section>
  `;
}

const STAGES = ["wait", "engine", "store", "gather", "coreset", "loo", "stored"];

/** @param {{now: any}} props */
function Running({ now }) {
  const at = Math.max(0, STAGES.indexOf(now.stage));
  const part = now.total ? now.done / now.total : 0;
  const text = now.total ? t("progress_of", { done: now.done, total: now.total }) : "";
  return html`
    <div class="running" role="status">
      <progress max=${1} value=${now.total ? part : undefined} aria-label=${t("fit_progress")}></progress>
      <p>
        <strong>${t("step_of", { step: at + 1, steps: STAGES.length })}</strong>
        ${` ${t(/** @type {Text} */ (`stage_${STAGES[at]}`))} ${text}`}
        ${now.elapsed_s > 1 && html`<span class="quiet"> · ${number(now.elapsed_s, 0)} s</span>`}
      </p>
    </div>
  `;
}

/** @param {{result: any}} props */
const Result = ({ result }) => html`
  <div class="result">
    <p>
      ${t("fit_result", { version: result.version, images: result.n_ok_total, embeddings: result.n_embeddings, rate: percent(result.coreset_rate_applied) })}
    </p>
    ${isCut(result.tiles) && html`<p>${t("fit_tiles", { rows: result.tiles[0], columns: result.tiles[1] })}</p>`}
    ${result.suspect_images.length > 0 && html`<p class="attention">${t("suspects_found", { n: result.suspect_images.length })}</p>`}
    ${result.calibration === "none" && html`<p>${t("calibrate_next")}</p>`}
    ${result.calibration === "stale" && html`<p class="attention">${t("stale_hint")}</p>`}
    <${Warnings} warnings=${result.warnings} />
  </div>
`;
