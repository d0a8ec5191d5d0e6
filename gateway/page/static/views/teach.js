/** Teach: store images, label them, say where the part is and how large, and learn. */

import { allImages } from "../api.js";
import { level, t } from "../i18n.js";
import { ErrorBox, notify, useConfirm } from "../parts/dialogs.js";
import { useDraft } from "../parts/draft.js";
import { Grid } from "../parts/grid.js";
import { History, deleted, relabelled } from "../parts/history.js";
import { Picture } from "../parts/picture.js";
import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { Adding } from "./teach_adding.js";
import { Learning } from "./teach_learning.js";
import { Large } from "./teach_large.js";

/** @typedef {import("../i18n.js").Text} Text */

/** @type {Record<string, (image: any) => boolean>} */
const FILTERS = {
  all: () => true,
  ok: (image) => image.label === "ok",
  ng: (image) => image.label === "ng",
  suspect: (image) => image.suspect || image.excluded,
  new: (image) => image.label === "ok" && !image.learned && !image.excluded,
};
/** @type {Record<string, (a: any, b: any) => number>} */
const ORDERS = {
  newest: (a, b) => (b.created_at ?? "").localeCompare(a.created_at ?? ""),
  score: (a, b) => (b.peak ?? b.score ?? -1) - (a.peak ?? a.score ?? -1),
  name: (a, b) => a.file_name.localeCompare(b.file_name, undefined, { numeric: true }),
};

/** @param {{image: any}} props */
const Marks = ({ image }) => html`
  <span class="marks">
    <span class=${`badge ${image.label}`}>${image.label === "ok" ? "OK" : "NG"}</span>
    ${image.learned && html`<span class="badge learned" title=${t("learned_hint")}>${t("learned")}</span>`}
    ${image.excluded && html`<span class="badge review" title=${t("excluded_hint")}>${t("excluded")}</span>`}
    ${image.suspect && html`<span class="badge review" title=${t("suspect_hint")}>${t("suspect")}</span>`}
  </span>
`;

/** @param {{roi: import("../api.js").Roi, detail: any, refresh: () => Promise<void>}} props */
export function Teach({ roi, detail, refresh }) {
  const [images, setImages] = useState(/** @type {any[] | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [filter, setFilter] = useState("all");
  const [order, setOrder] = useState("newest");
  const [selected, setSelected] = useState(/** @type {Set<string>} */ (new Set()));
  const [large, setLarge] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const history = useRef(new History());
  const [question, confirm] = useConfirm();
  const [draft, setDraft] = useDraft(roi, detail);

  const load = async () => {
    try {
      setError(null);
      setImages(await allImages(roi));
    } catch (failure) {
      setError(failure);
    }
  };
  useEffect(() => {
    load();
  }, []);

  const shown = (images ?? []).filter(FILTERS[filter]).sort(ORDERS[order]);
  const chosen = (images ?? []).filter((image) => selected.has(image.id));
  const counts = (/** @type {string} */ name) => (images ?? []).filter(FILTERS[name]).length;

  const change = async (/** @type {() => Promise<any>} */ work) => {
    if (busy) return;
    setBusy(true);
    try {
      await work();
    } catch (failure) {
      notify(/** @type {Error} */ (failure).message, "error");
    }
    await load();
    setBusy(false);
  };
  const label = (/** @type {"ok" | "ng"} */ wanted) => {
    const some = chosen.filter((image) => image.label !== wanted);
    if (!some.length) return;
    change(async () => {
      if (wanted === "ok" && some.some((image) => image.suspect || image.excluded || isAbove(image, detail))) {
        const agreed = await confirm({ title: t("suspect_title"), text: t("suspect_guard"), yes: t("label_ok_anyway") });
        if (!agreed) return;
      }
      const name = t(wanted === "ok" ? "labelled_ok" : "labelled_ng", { n: some.length });
      await history.current.add(relabelled(roi, some, wanted, name));
      notify(name);
    });
  };
  const remove = () => {
    if (!chosen.length) return;
    change(async () => {
      const name = t("deleted", { n: chosen.length });
      await history.current.add(deleted(roi, chosen, name));
      setSelected(new Set());
      notify(`${name} ${t("undo_hint")}`);
    });
  };
  const undo = () => change(async () => {
    const step = await history.current.undo();
    if (step) notify(t("undone", { what: step.name }));
  });
  const redo = () => change(async () => {
    const step = await history.current.redo();
    if (step) notify(t("redone", { what: step.name }));
  });
  const key = (/** @type {KeyboardEvent} */ event) => {
    const name = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (name === "z" && !event.shiftKey) undo();
      else if (name === "y" || (name === "z" && event.shiftKey)) redo();
      else return false;
    } else if (name === "o") label("ok");
    else if (name === "n") label("ng");
    else if (name === "delete" || name === "backspace") remove();
    else return false;
    return true;
  };
  const anyKey = (/** @type {any} */ event) => {
    const isTyping = /^(input|select|textarea)$/i.test(event.target.tagName);
    if (!isTyping && !large && (event.ctrlKey || event.metaKey) && key(event)) event.preventDefault();
  };
  const draw = (/** @type {any} */ image) => html`
    <span class="thumb"><${Picture} roi=${roi} rest=${`/images/${image.id}/thumbnail`} alt=${image.file_name} /></span>
    <${Marks} image=${image} />
    <span class="caption"><span class="name" title=${image.file_name}>${image.file_name}</span>
      <span class="value" title=${t("peak_or_score")}>${level(image.peak ?? image.score)}</span></span>
  `;
  const tab = (/** @type {string} */ name, /** @type {Text} */ text) => html`
    <button class=${filter === name ? "on" : ""} aria-pressed=${filter === name} onClick=${() => setFilter(name)}>
      ${t(text)} <span class="count">${counts(name)}</span>
    </button>
  `;
  return html`
    <div class="columns tall" onKeyDown=${anyKey}>
      <div class="side">
        <${Adding} roi=${roi} done=${load} />
        <${Learning} roi=${roi} detail=${detail} images=${images ?? []} draft=${draft} setDraft=${setDraft}
          done=${async () => (await refresh(), await load())} />
      </div>
      <section class="panel grow stack">
        <div class="tools">
          <div class="segments" role="group" aria-label=${t("filter")}>
            ${tab("all", "filter_all")} ${tab("ok", "filter_ok")} ${tab("ng", "filter_ng")}
            ${tab("suspect", "filter_suspect")} ${tab("new", "filter_new")}
          </div>
          <label class="inline">${t("sort")}
            <select value=${order} onChange=${(/** @type {any} */ event) => setOrder(event.target.value)}>
              <option value="newest">${t("sort_newest")}</option>
              <option value="score">${t("sort_score")}</option>
              <option value="name">${t("sort_name")}</option>
            </select>
          </label>
          <span class="grow"></span>
          <button disabled=${busy || !history.current.done.length} title="Ctrl+Z" onClick=${undo}>${t("undo")}</button>
          <button disabled=${busy || !history.current.undone.length} title="Ctrl+Y" onClick=${redo}>${t("redo")}</button>
        </div>
        ${error && html`<${ErrorBox} error=${error} again=${load} />`}
        ${images && !images.length && html`<p class="empty">${t("no_images")}</p>`}
        ${images && images.length > 0 && !shown.length && html`<p class="empty">${t("none_here")}</p>`}
        <${Grid} items=${shown} label=${t("images")} idOf=${(/** @type {any} */ image) => image.id} draw=${draw}
          selected=${selected} onSelect=${setSelected} onKey=${key} onOpen=${setLarge} />
        <div class="tools bottom">
          <span>${t("n_selected", { n: chosen.length })}</span>
          <button disabled=${busy || !chosen.length} onClick=${() => label("ok")}>${t("label_ok")} <kbd>O</kbd></button>
          <button disabled=${busy || !chosen.length} onClick=${() => label("ng")}>${t("label_ng")} <kbd>N</kbd></button>
          <button disabled=${busy || !chosen.length} onClick=${remove}>${t("delete")} <kbd>Del</kbd></button>
          <button disabled=${!chosen.length} onClick=${() => setLarge(chosen[0])}>${t("look")} <kbd>↵</kbd></button>
        </div>
      </section>
      ${large && html`<${Large} roi=${roi} image=${large} images=${shown} show=${setLarge} />`}
      ${question}
    </div>
  `;
}

/** Whether an image reaches the threshold of the peak. @param {any} image @param {any} detail */
const isAbove = (image, detail) =>
  Boolean(detail?.calibration) && image.peak !== null && image.peak >= detail.calibration.peak_threshold;
