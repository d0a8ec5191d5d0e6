/** Calibrate: drag the threshold, see what it means, and apply it. Nothing is stored before. */

import { allImages, call, ofRoi } from "../api.js";
import { level, number, percent, t, typedNumber } from "../i18n.js";
import { ErrorBox, Warnings, notify } from "../parts/dialogs.js";
import { Histogram } from "../parts/histogram.js";
import { Picture } from "../parts/picture.js";
import { address } from "../places.js";
import { html, useEffect, useState } from "../vendor/htm-preact.js";
import { Large } from "./teach_large.js";

const RATES = [0.01, 0.02, 0.05, 0.1];
const USUAL = 0.02;
const SHOWN = 24;
const ABOVE = 1e-6;

/**
 * The threshold that a rate chooses: just above the level of its conformal rank, as the gateway chooses it.
 *
 * @param {any} peaks
 * @param {number} rate
 */
export function thresholdAt(peaks, rate) {
  const ok = okLevels(peaks);
  const rejected = Math.max(0, Math.floor(rate * (ok.length + 1) + 1e-9) - 1);
  return ok[Math.max(0, ok.length - 1 - rejected)] + ABOVE;
}

/** @param {any} peaks @returns {number[]} ascending */
const okLevels = (peaks) =>
  peaks.images.filter((/** @type {any} */ image) => image.label === "ok").map((/** @type {any} */ image) => image.level).sort((/** @type {number} */ a, /** @type {number} */ b) => a - b);

/**
 * What a threshold does to the images, and what that says of others.
 *
 * @param {any} peaks
 * @param {number} threshold
 */
export function effectOf(peaks, threshold) {
  const rejected = peaks.images.filter((/** @type {any} */ image) => image.label === "ok" && image.level >= threshold);
  const missed = peaks.images.filter((/** @type {any} */ image) => image.label === "ng" && image.level < threshold);
  return {
    rejected,
    missed,
    falseAlarms: peaks.false_alarms[rejected.length],
    misses: peaks.misses.length ? peaks.misses[missed.length] : null,
  };
}

/** @param {any} peaks @param {any} stored the calibration in use, or null */
function startOf(peaks, stored) {
  const threshold = stored ? stored.peak_threshold : thresholdAt(peaks, USUAL);
  const isByRate = !stored || stored.pixel_threshold_source === "peak";
  return {
    threshold,
    rate: isByRate ? (stored?.false_alarm_rate ?? USUAL) : null,
    review: stored?.review_threshold ?? null,
  };
}

/** @param {{roi: import("../api.js").Roi, detail: any, refresh: () => Promise<void>}} props */
export function Calibrate({ roi, detail, refresh }) {
  const [peaks, setPeaks] = useState(/** @type {any} */ (null));
  const [names, setNames] = useState(/** @type {Map<string, any>} */ (new Map()));
  const [lines, setLines] = useState(/** @type {{threshold: number, rate: number | null, review: number | null} | null} */ (null));
  const [area, setArea] = useState("");
  const [error, setError] = useState(/** @type {any} */ (null));
  const [answer, setAnswer] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const [large, setLarge] = useState(/** @type {any} */ (null));

  const load = async (/** @type {number | null} */ wanted, /** @type {any} */ stored) => {
    if (!detail) return;
    setError(null);
    setBusy(true);
    try {
      const found = await ofRoi(roi, "/peaks", { query: { area_mm2_thr: wanted } });
      setPeaks(found);
      setArea(String(found.area_mm2_thr));
      const isSame = stored && wanted === null;
      setLines((before) => (isSame || !before ? startOf(found, stored) : { ...before, ...(before.rate !== null && { threshold: thresholdAt(found, before.rate) }) }));
      setNames(new Map((await allImages(roi)).map((image) => [image.id, image])));
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  };
  useEffect(() => {
    load(null, detail?.calibration);
  }, []);

  if (!detail) {
    return html`<section class="panel"><h1>${t("view_calibrate")}</h1><p>${t("fit_first")}</p>
      <p><a class="button primary" href=${address("teach", roi)}>${t("view_teach")}</a></p></section>`;
  }
  if (error && !peaks) return html`<${ErrorBox} error=${error} again=${() => load(null, detail.calibration)} />`;
  if (!peaks || !lines) return html`<p class="loading" role="status">${t("measuring")}</p>`;

  const stored = detail.calibration;
  const effect = effectOf(peaks, lines.threshold);
  const inBand = lines.review === null ? 0 : effectOf(peaks, lines.review).rejected.length - effect.rejected.length;
  const typed = typedNumber(area);
  const isChanged =
    !stored ||
    stored.stale ||
    Math.abs(lines.threshold - stored.peak_threshold) > 1e-5 ||
    (lines.review ?? -1) !== (stored.review_threshold ?? -1) ||
    peaks.area_mm2_thr !== stored.area_mm2_thr;
  const set = (/** @type {Partial<typeof lines>} */ change) => {
    setAnswer(null);
    setLines({ ...lines, ...change });
  };
  /** A band that about as many good parts again fall into, and at least one in twenty. */
  const firstReview = () => below(thresholdAt(peaks, Math.min(0.5, 2 * effect.falseAlarms.rate + 0.05)));
  const below = (/** @type {number} */ review) => Math.min(review, lines.threshold - ABOVE);
  const changeArea = () => {
    if (typed !== null && typed >= 0 && typed !== peaks.area_mm2_thr) load(typed, null);
  };
  const apply = async () => {
    setBusy(true);
    setError(null);
    try {
      const json = {
        ...roi,
        mm_per_px: peaks.mm_per_px,
        area_mm2_thr: peaks.area_mm2_thr,
        score_percentile: peaks.score_percentile,
        ...(lines.rate === null ? { peak_threshold: lines.threshold } : { false_alarm_rate: lines.rate }),
        ...(lines.review === null ? {} : { review_threshold: lines.review }),
        ...(stored?.shape ? { shape: JSON.parse(stored.shape) } : {}),
      };
      const made = await call("/calibrate_ng", { json });
      setAnswer(made);
      setLines({ threshold: made.peak_threshold, rate: lines.rate, review: made.review_threshold });
      notify(t("applied"));
      await refresh();
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  };
  const drawn = [
    ...(lines.review === null
      ? []
      : [{ name: "review", text: t("review_line"), value: lines.review, set: (/** @type {number} */ value) => set({ review: below(value) }) }]),
    {
      name: "threshold",
      text: t("threshold_line"),
      value: lines.threshold,
      set: (/** @type {number} */ value) =>
        set({ threshold: value, rate: null, ...(lines.review !== null && { review: Math.min(lines.review, value - ABOVE) }) }),
    },
  ];
  const counts = { ok: okLevels(peaks).length, ng: peaks.misses.length ? peaks.misses.length - 1 : 0 };
  return html`
    <div class="columns">
      <section class="panel grow">
        <div class="tools">
          <h1>${t("view_calibrate")}</h1>
          ${isChanged ? html`<span class="chip review">${t("not_applied")}</span>` : html`<span class="chip ok">${t("in_use")}</span>`}
          ${stored?.stale && html`<span class="chip ng">${t("stale")}</span>`}
          <span class="grow"></span>
          <span class="legend"><span class="swatch ok"></span>${t("n_ok", { n: counts.ok })}</span>
          <span class="legend"><span class="swatch ng"></span>${t("n_ng", { n: counts.ng })}</span>
        </div>
        <${Histogram} images=${peaks.images} lines=${drawn} label=${t("histogram")} />
        <${Sentence} effect=${effect} peaks=${peaks} inBand=${inBand} review=${lines.review} counts=${counts} />
        <${Strip} roi=${roi} title=${t("would_be_rejected")} images=${effect.rejected} names=${names} open=${setLarge} />
        <${Strip} roi=${roi} title=${t("would_pass")} images=${effect.missed} names=${names} open=${setLarge} />
      </section>
      <section class="panel narrow">
        <h2>${t("threshold")}</h2>
        <p class="figure large">${level(lines.threshold)}</p>
        <p class="quiet">${lines.rate === null ? t("set_by_hand") : t("set_by_rate", { rate: percent(lines.rate) })}</p>
        <div class="segments wide" role="group" aria-label=${t("rates")}>
          ${RATES.map(
            (rate) => html`<button class=${lines.rate === rate ? "on" : ""} aria-pressed=${lines.rate === rate}
              onClick=${() => set({ rate, threshold: thresholdAt(peaks, rate), ...(lines.review !== null && { review: Math.min(lines.review, thresholdAt(peaks, rate) - ABOVE) }) })}>${percent(rate)}</button>`,
          )}
        </div>
        <p class="quiet">${t("rates_text")}</p>
        <label class="field">${t("smallest_area")}
          <input name="area" inputmode="decimal" value=${area} onInput=${(/** @type {any} */ event) => setArea(event.target.value)}
            onChange=${changeArea} /></label>
        <label class="check">
          <input type="checkbox" name="review" checked=${lines.review !== null}
            onChange=${(/** @type {any} */ event) => set({ review: event.target.checked ? firstReview() : null })} />
          ${t("review_band")}
        </label>
        ${lines.review !== null && html`<p class="quiet">${t("review_text", { from: level(lines.review), to: level(lines.threshold) })}</p>`}
        ${error && html`<${ErrorBox} error=${error} />`}
        <p class="buttons">
          <button disabled=${busy || !isChanged || !stored} onClick=${() => load(null, stored)}>${t("discard")}</button>
          <button class="primary" disabled=${busy} onClick=${apply}>${t("apply")}</button>
        </p>
        ${answer && html`<p class="done">${t("stated", { rate: percent(answer.verdict_false_alarm_rate ?? 0), low: percent(answer.verdict_false_alarm_interval?.[0] ?? 0), high: percent(answer.verdict_false_alarm_interval?.[1] ?? 0) })}</p>`}
        <${Warnings} warnings=${[...peaks.warnings, ...(answer?.warnings ?? []).filter((/** @type {string} */ each) => !each.startsWith("missed_ng:"))]} />
      </section>
      ${large && html`<${Large} roi=${roi} image=${large} images=${[large]} show=${setLarge} />`}
    </div>
  `;
}

/** @param {any} props */
function Sentence({ effect, peaks, inBand, review, counts }) {
  const shares = (/** @type {any} */ rate) => ({ rate: percent(rate.rate), low: percent(rate.low), high: percent(rate.high) });
  const pixels = Math.max(1, Math.round(peaks.area_mm2_thr / peaks.mm_per_px ** 2));
  const across = Math.sqrt((4 * peaks.area_mm2_thr) / Math.PI);
  return html`
    <ul class="sentence" aria-live="polite">
      <li>${t("sentence_ok", { n: effect.rejected.length, of: counts.ok, ...shares(effect.falseAlarms) })}</li>
      <li>
        ${effect.misses
          ? t("sentence_ng", { n: effect.missed.length, of: counts.ng, ...shares(effect.misses) })
          : t("sentence_no_ng")}
      </li>
      ${review !== null && html`<li>${t("sentence_review", { n: inBand, of: counts.ok })}</li>`}
      <li>${t("sentence_area", { area: number(peaks.area_mm2_thr), across: number(across, 1), pixels })}</li>
    </ul>
  `;
}

/** @param {any} props */
function Strip({ roi, title, images, names, open }) {
  const known = images.filter((/** @type {any} */ image) => names.has(image.id));
  const sorted = known.sort((/** @type {any} */ a, /** @type {any} */ b) => b.level - a.level);
  return html`
    <details open=${images.length > 0 && images.length <= SHOWN}>
      <summary>${title} <span class="count">${images.length}</span></summary>
      <div class="strip">
        ${sorted.slice(0, SHOWN).map((/** @type {any} */ image) => {
          const about = names.get(image.id);
          return html`
            <button class="thumb" key=${image.id} title=${about.file_name} onClick=${() => open(about)}>
              <${Picture} roi=${roi} rest=${`/images/${image.id}/thumbnail`} alt=${about.file_name} />
              <span>${level(image.level)}</span>
            </button>
          `;
        })}
      </div>
    </details>
  `;
}
