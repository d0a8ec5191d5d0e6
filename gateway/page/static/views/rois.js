/** The ROIs: choose one, or make one. */

import { call } from "../api.js";
import { number, t } from "../i18n.js";
import { ErrorBox } from "../parts/dialogs.js";
import { address } from "../places.js";
import { html, useEffect, useState } from "../vendor/htm-preact.js";

/** @param {{roi: any}} props */
function State({ roi }) {
  if (!roi.version) return html`<span class="chip">${t("not_fitted")}</span>`;
  return html`
    ${!roi.calibration && html`<span class="chip">${t("not_calibrated")}</span>`}
    ${roi.calibration && !roi.calibration.stale && html`<span class="chip ok">${t("calibrated")}</span>`}
    ${roi.calibration?.stale && html`<span class="chip review">${t("stale")}</span>`}
    ${roi.drift_alarms.length > 0 && html`<span class="chip ng">${t("drift")}</span>`}
    ${roi.degraded && html`<span class="chip ng">${t("damaged")}</span>`}
  `;
}

export function Rois() {
  const [list, setList] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [filter, setFilter] = useState("");
  const [made, setMade] = useState({ recipe_id: "", role_id: "", roi_id: "" });
  const load = () => {
    setError(null);
    call("/rois").then(setList, setError);
  };
  useEffect(load, []);

  const every = list ? [...list.rois, ...list.unfitted] : [];
  const name = (/** @type {any} */ roi) => `${roi.recipe_id} / ${roi.role_id} / ${roi.roi_id}`;
  const found = every
    .filter((roi) => name(roi).toLowerCase().includes(filter.trim().toLowerCase()))
    .sort((a, b) => name(a).localeCompare(name(b)));
  const make = (/** @type {Event} */ event) => {
    event.preventDefault();
    location.hash = address("teach", { ...made, recipe_id: made.recipe_id.trim() || "default" });
  };
  const field = (/** @type {"recipe_id" | "role_id" | "roi_id"} */ id, /** @type {any} */ text, required = true) => html`
    <label class="field">
      ${text}
      <input name=${id} list=${`known-${id}`} value=${made[id]} required=${required} maxlength="64"
        placeholder=${id === "recipe_id" ? "default" : ""}
        onInput=${(/** @type {any} */ event) => setMade({ ...made, [id]: event.target.value })} />
      <datalist id=${`known-${id}`}>
        ${[...new Set(every.map((roi) => roi[id]))].map((value) => html`<option value=${value}></option>`)}
      </datalist>
    </label>
  `;
  return html`
    <div class="columns">
      <section class="panel grow">
        <h1>${t("rois")}</h1>
        ${error && html`<${ErrorBox} error=${error} again=${load} />`}
        ${every.length > 8 &&
        html`<label class="field">${t("search")}
          <input type="search" value=${filter} onInput=${(/** @type {any} */ e) => setFilter(e.target.value)} /></label>`}
        ${list && !every.length && html`<p class="empty">${t("no_rois")}</p>`}
        <ul class="rois">
          ${found.map(
            (roi) => html`
              <li key=${name(roi)}>
                <a href=${address(roi.calibration ? "try" : roi.version ? "calibrate" : "teach", roi)}>
                  <span class="grow"><span class="quiet">${roi.recipe_id} / ${roi.role_id} / </span><strong>${roi.roi_id}</strong></span>
                  <span class="quiet">
                    ${roi.version
                      ? t("roi_facts", { images: number(roi.n_ok_total), version: roi.version })
                      : t("n_images", { n: roi.n_ok + roi.n_ng })}
                  </span>
                  <${State} roi=${roi} />
                </a>
              </li>
            `,
          )}
        </ul>
        ${list?.unreadable.map((/** @type {string} */ each) => html`<p class="problem">${each}</p>`)}
      </section>
      <section class="panel narrow">
        <h2>${t("new_roi")}</h2>
        <p class="quiet">${t("new_roi_text")}</p>
        <form onSubmit=${make}>
          ${field("role_id", t("role"))} ${field("roi_id", t("roi"))} ${field("recipe_id", t("recipe"), false)}
          <p class="buttons"><button class="primary" type="submit">${t("make")}</button></p>
        </form>
      </section>
    </div>
  `;
}
