/** Review: what was inspected lately, borderline first, and what it really was. */

import { infer, ofRoi } from "../api.js";
import { level, t, time } from "../i18n.js";
import { ErrorBox, notify, useConfirm } from "../parts/dialogs.js";
import { Picture, usePicture } from "../parts/picture.js";
import { VerdictBadge, reasonOf } from "../parts/verdict.js";
import { Viewer } from "../parts/viewer.js";
import { html, useEffect, useLayoutEffect, useState } from "../vendor/htm-preact.js";
import { Inspection } from "./inspection.js";
import { SIDE } from "./teach_large.js";
import { storeAs } from "./try.js";

const PAGE = 100;

/** @param {{roi: import("../api.js").Roi, detail: any}} props */
export function Review({ roi, detail }) {
  const [list, setList] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [order, setOrder] = useState("borderline");
  const [at, setAt] = useState(0);
  const [heatmap, setHeatmap] = useState(/** @type {{id: number, answer: any} | null} */ (null));
  const [busy, setBusy] = useState(false);
  const [question, confirm] = useConfirm();

  const load = async (more = false) => {
    setError(null);
    try {
      const offset = more ? list.inspections.length : 0;
      const found = await ofRoi(roi, "/inspections", { query: { order, offset, limit: PAGE } });
      setList(more ? { ...found, inspections: [...list.inspections, ...found.inspections] } : found);
    } catch (failure) {
      setError(failure);
    }
  };
  useEffect(() => {
    load();
  }, [order]);

  const found = list?.inspections ?? [];
  const one = found[at];
  const picture = usePicture(roi, one ? `/inspections/${one.id}/thumbnail` : null, { side: SIDE });
  const move = (/** @type {number} */ by) => {
    if (found[at + by]) setAt(at + by);
  };
  const fileOf = async (/** @type {any} */ inspection) => {
    const blob = await ofRoi(roi, `/inspections/${inspection.id}/image`, { as: "blob" });
    return new File([blob], inspection.file_name, { type: blob.type });
  };
  const work = async (/** @type {() => Promise<void>} */ what) => {
    if (busy) return;
    setBusy(true);
    try {
      await what();
    } catch (failure) {
      notify(/** @type {Error} */ (failure).message, "error");
    }
    setBusy(false);
  };
  const keep = (/** @type {"ok" | "ng"} */ label) =>
    one &&
    work(async () => {
      if (label === "ok" && one.verdict === "ng") {
        const agreed = await confirm({ title: t("suspect_title"), text: t("suspect_guard"), yes: t("label_ok_anyway") });
        if (!agreed) return;
      }
      await storeAs(roi, label, await fileOf(one));
      const inspections = found.map((/** @type {any} */ each) => (each.id === one.id ? { ...each, stored_label: label } : each));
      setList({ ...list, inspections });
      notify(t(label === "ok" ? "labelled_ok" : "labelled_ng", { n: 1 }));
      move(1);
    });
  const show = () =>
    work(async () => {
      const shape = detail?.shape ? JSON.parse(detail.shape) : null;
      const answer = await infer(roi, await fileOf(one), one.file_name, { mm_per_px: detail.mm_per_px, shape });
      setHeatmap({ id: one.id, answer });
    });
  const key = (/** @type {any} */ event) => {
    if (/^(input|select|textarea)$/i.test(event.target.tagName) || event.ctrlKey || event.metaKey) return;
    const name = event.key.toLowerCase();
    if (name === "arrowdown" || name === "j") move(1);
    else if (name === "arrowup" || name === "k") move(-1);
    else if (name === "o") keep("ok");
    else if (name === "n") keep("ng");
    else return;
    event.preventDefault();
  };
  useLayoutEffect(() => {
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  });

  if (error) return html`<${ErrorBox} error=${error} again=${() => load()} />`;
  if (!list) return html`<p class="loading" role="status">${t("loading")}</p>`;
  if (!list.keeps && !found.length) {
    return html`<section class="panel"><h1>${t("view_review")}</h1><p>${t("not_kept")}</p>
      <p><code>GATEWAY_KEEP_INSPECTIONS=true</code></p><p class="quiet">${t("not_kept_text")}</p></section>`;
  }
  return html`
    <div class="columns tall">
      <section class="panel side stack">
        <div class="tools">
          <h1>${t("view_review")}</h1>
          <span class="grow"></span>
          <label class="inline"><span class="hidden">${t("sort")}</span>
            <select name="order" value=${order} onChange=${(/** @type {any} */ event) => (setAt(0), setOrder(event.target.value))}>
              <option value="borderline">${t("sort_borderline")}</option>
              <option value="newest">${t("sort_newest")}</option>
            </select>
          </label>
        </div>
        ${!found.length && html`<p class="empty">${t("nothing_kept")}</p>`}
        <ul class="parts" aria-label=${t("inspections")}>
          ${found.map(
            (/** @type {any} */ each, /** @type {number} */ i) => html`
              <li key=${each.id}>
                <button class=${i === at ? "on" : ""} aria-current=${i === at ? "true" : undefined} onClick=${() => setAt(i)}>
                  <span class="mini"><${Picture} roi=${roi} rest=${`/inspections/${each.id}/thumbnail`} query=${{ side: 96 }} alt="" /></span>
                  <span class="name">${each.file_name}<br /><span class="quiet">${time(each.time)} · ${level(each.peak)}</span></span>
                  ${each.stored_label && html`<span class=${`badge ${each.stored_label}`} title=${t("stored_as")}>⤓ ${each.stored_label.toUpperCase()}</span>`}
                  <${VerdictBadge} verdict=${each.verdict} />
                </button>
              </li>
            `,
          )}
        </ul>
        ${found.length < list.total && html`<p class="buttons"><button onClick=${() => load(true)}>${t("more")}</button></p>`}
      </section>
      <section class="panel grow">
        ${one &&
        html`
          ${heatmap && heatmap.id === one.id
            ? html`<${Inspection} answer=${heatmap.answer} name=${one.file_name} src=${picture.src} />`
            : html`
                <div class="inspection">
                  <div class="grow stack">
                    <${Viewer} src=${picture.src} width=${one.width} height=${one.height} label=${one.file_name} />
                  </div>
                  <div class="facts-side">
                    <p class="verdict"><${VerdictBadge} verdict=${one.verdict} large /></p>
                    <p>${reasonOf(one)}</p>
                    <dl>
                      <dt>${t("peak")}</dt><dd>${level(one.peak)} <span class="quiet">/ ${level(one.peak_threshold)}</span></dd>
                      <dt>${t("score")}</dt><dd>${level(one.score)} <span class="quiet">/ ${level(one.threshold)}</span></dd>
                      <dt>${t("version")}</dt><dd>${one.version}</dd>
                    </dl>
                    <p><button disabled=${busy || !detail} onClick=${show}>${t("show_heatmap")}</button></p>
                  </div>
                </div>
              `}
          <p class="buttons">
            <button disabled=${at === 0} onClick=${() => move(-1)}>← ${t("previous")} <kbd>K</kbd></button>
            <button disabled=${at + 1 >= found.length} onClick=${() => move(1)}>${t("next")} → <kbd>J</kbd></button>
            <span class="grow">${one.stored_label && t(one.stored_label === "ok" ? "stored_ok" : "stored_ng")}</span>
            <button disabled=${busy} onClick=${() => keep("ok")}>${t("this_is_ok")} <kbd>O</kbd></button>
            <button disabled=${busy} onClick=${() => keep("ng")}>${t("this_is_ng")} <kbd>N</kbd></button>
          </p>
        `}
      </section>
      ${question}
    </div>
  `;
}
