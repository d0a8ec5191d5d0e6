/** Try: drop parts, and see the verdict, its reason, and where it comes from. */

import { ApiError, infer, ofRoi } from "../api.js";
import { t } from "../i18n.js";
import { ErrorBox, Warnings, notify, useConfirm } from "../parts/dialogs.js";
import { useDraft } from "../parts/draft.js";
import { VerdictBadge } from "../parts/verdict.js";
import { address } from "../places.js";
import { droppedFiles, picturesOf, store } from "../uploads.js";
import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { Camera } from "./camera.js";
import { Inspection } from "./inspection.js";

/** @typedef {{id: number, file: File, src: string, answer: any, error: any, label: string | null}} Part */

const MOST = 200;
let numbers = 0;

/** @param {{roi: import("../api.js").Roi, detail: any}} props */
export function Try({ roi, detail }) {
  const [parts, setParts] = useState(/** @type {Part[]} */ ([]));
  const [at, setAt] = useState(/** @type {number | null} */ (null));
  const [isOver, setOver] = useState(false);
  const [camera, setCamera] = useState(false);
  const files = useRef(/** @type {HTMLInputElement | null} */ (null));
  const [question, confirm] = useConfirm();
  const [draft] = useDraft(roi, detail);
  const open = useRef(/** @type {string[]} */ ([]));
  useEffect(() => () => open.current.forEach((src) => URL.revokeObjectURL(src)), []);

  if (!detail) {
    return html`<section class="panel"><h1>${t("view_try")}</h1><p>${t("fit_first")}</p>
      <p><a class="button primary" href=${address("teach", roi)}>${t("view_teach")}</a></p></section>`;
  }
  const change = (/** @type {number} */ id, /** @type {Partial<Part>} */ what) =>
    setParts((before) => before.map((part) => (part.id === id ? { ...part, ...what } : part)));
  const inspect = async (/** @type {File[]} */ found) => {
    const added = found.map((file) => {
      numbers += 1;
      const src = URL.createObjectURL(file);
      open.current.push(src);
      return { id: numbers, file, src, answer: null, error: null, label: null };
    });
    if (!added.length) return;
    setParts((before) => [...added, ...before].slice(0, MOST));
    setAt(added[0].id);
    for (const part of added) {
      try {
        const shape = detail.shape ? JSON.parse(detail.shape) : null;
        change(part.id, { answer: await infer(roi, part.file, part.file.name, { mm_per_px: detail.mm_per_px, shape }) });
      } catch (error) {
        change(part.id, { error });
      }
    }
  };
  const keep = async (/** @type {Part} */ part, /** @type {"ok" | "ng"} */ label) => {
    if (label === "ok" && part.answer.verdict === "ng") {
      const agreed = await confirm({ title: t("suspect_title"), text: t("suspect_guard"), yes: t("label_ok_anyway") });
      if (!agreed) return;
    }
    try {
      await storeAs(roi, label, part.file);
      change(part.id, { label });
      notify(t(label === "ok" ? "labelled_ok" : "labelled_ng", { n: 1 }));
    } catch (error) {
      notify(/** @type {Error} */ (error).message, "error");
    }
  };
  const index = parts.findIndex((part) => part.id === at);
  const part = parts[index];
  const key = (/** @type {any} */ event) => {
    if (/^(input|select|textarea)$/i.test(event.target.tagName) && event.target.type !== "range") return;
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[/** @type {string} */ (event.key)];
    if (!by || event.target.type === "range" || !parts[index + by]) return;
    event.preventDefault();
    setAt(parts[index + by].id);
  };
  const drop = async (/** @type {any} */ event) => {
    event.preventDefault();
    setOver(false);
    await inspect(await droppedFiles(event.dataTransfer));
  };
  return html`
    <div class="columns tall" onKeyDown=${key}>
      <section class="panel side stack">
        <h1>${t("view_try")}</h1>
        <div class=${`drop ${isOver ? "over" : ""}`} onDragOver=${(/** @type {Event} */ event) => (event.preventDefault(), setOver(true))}
          onDragLeave=${() => setOver(false)} onDrop=${drop}>
          <p>${t("drop_parts")}</p>
          <p class="buttons center">
            <button class="primary" onClick=${() => files.current?.click()}>${t("choose_files")}</button>
            <button onClick=${() => setCamera(true)}>${t("camera")}</button>
          </p>
          <input class="hidden" type="file" name="parts" multiple tabindex="-1" aria-label=${t("choose_files")} ref=${files}
            onChange=${(/** @type {any} */ event) => {
              const found = [...event.target.files];
              event.target.value = "";
              inspect(found);
            }} />
        </div>
        ${!detail.calibration && html`<p class="attention">${t("not_calibrated_hint")} <a href=${address("calibrate", roi)}>${t("view_calibrate")}</a></p>`}
        ${draft.mm_per_px !== String(detail.mm_per_px) && html`<p class="attention">${t("draft_hint")}</p>`}
        <ul class="parts" aria-label=${t("parts")}>
          ${parts.map(
            (each) => html`
              <li key=${each.id}>
                <button class=${each.id === at ? "on" : ""} aria-current=${each.id === at ? "true" : undefined} onClick=${() => setAt(each.id)}>
                  <span class="mini">${isDrawable(each.file) ? html`<img src=${each.src} alt="" />` : "▦"}</span>
                  <span class="name">${each.file.name}</span>
                  ${each.error
                    ? html`<span class="badge ng">${t("error")}</span>`
                    : each.answer
                      ? html`<${VerdictBadge} verdict=${each.answer.verdict} />`
                      : html`<span class="quiet">…</span>`}
                </button>
              </li>
            `,
          )}
        </ul>
      </section>
      <section class="panel grow">
        ${!part && html`<p class="empty">${t("try_empty")}</p>`}
        ${part?.error && html`<h2>${part.file.name}</h2><${ErrorBox} error=${part.error} />`}
        ${part && !part.error && !part.answer && html`<p class="loading" role="status">${t("inspecting")}</p>`}
        ${part?.answer &&
        html`
          <${Inspection} key=${part.id} answer=${part.answer} name=${part.file.name} src=${isDrawable(part.file) ? part.src : null} />
          <${Warnings} warnings=${part.answer.warnings} />
          <p class="buttons">
            ${part.label
              ? html`<span>${t(part.label === "ok" ? "stored_ok" : "stored_ng")}</span>`
              : html`<span class="grow quiet">${t("keep_text")}</span>
                  <button onClick=${() => keep(part, "ok")}>${t("this_is_ok")}</button>
                  <button onClick=${() => keep(part, "ng")}>${t("this_is_ng")}</button>`}
          </p>
        `}
      </section>
      ${camera && html`<${Camera} close=${() => setCamera(false)} taken=${async (/** @type {File} */ file) => inspect([file])} />`}
      ${question}
    </div>
  `;
}

/** Whether a browser shows a file by itself. @param {File} file */
export const isDrawable = (file) => picturesOf(/** @type {any} */ ([file])).length === 0 || !/\.tiff?$/i.test(file.name);

/**
 * Store a picture with a label; one that is stored with the other label gets this one.
 *
 * @param {import("../api.js").Roi} roi
 * @param {"ok" | "ng"} label
 * @param {File} file
 */
export async function storeAs(roi, label, file) {
  try {
    await store(roi, label, [file]);
  } catch (error) {
    const id = error instanceof ApiError && error.code === "image_conflict" && /images\/([0-9a-f]{64})/.exec(error.hint)?.[1];
    if (!id) throw error;
    await ofRoi(roi, `/images/${id}`, { method: "PATCH", json: { label } });
  }
}
