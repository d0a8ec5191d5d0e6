/** Versions: list, rollback, comparison; drift, report and history of the ROI. */

import { ofRoi, roiPath, url } from "../api.js";
import { level, number, percent, t, time } from "../i18n.js";
import { ErrorBox, notify, useConfirm } from "../parts/dialogs.js";
import { Picture } from "../parts/picture.js";
import { VerdictBadge } from "../parts/verdict.js";
import { address } from "../places.js";
import { html, useEffect, useState } from "../vendor/htm-preact.js";

/** @typedef {import("../i18n.js").Text} Text */

/** @param {{roi: import("../api.js").Roi, detail: any, refresh: () => Promise<void>}} props */
export function Versions({ roi, detail, refresh }) {
  const [question, confirm] = useConfirm();
  const [drift, setDrift] = useState(/** @type {any} */ (null));
  const [audit, setAudit] = useState(/** @type {any[]} */ ([]));
  useEffect(() => {
    if (!detail) return;
    ofRoi(roi, "/drift").then(setDrift, () => {});
    ofRoi(roi, "/audit", { query: { limit: 30 } }).then((answer) => setAudit(answer.entries), () => {});
  }, [detail]);

  if (!detail) {
    return html`<section class="panel"><h1>${t("view_versions")}</h1><p>${t("fit_first")}</p>
      <p><a class="button primary" href=${address("teach", roi)}>${t("view_teach")}</a></p></section>`;
  }
  const roll = async (/** @type {number} */ version) => {
    const text = t("rollback_text", { version });
    if (!(await confirm({ title: t("rollback_title", { version }), text, yes: t("rollback") }))) return;
    try {
      const answer = await ofRoi(roi, "/rollback", { json: { version } });
      notify(t("rolled_back", { version: answer.version }));
    } catch (error) {
      notify(/** @type {Error} */ (error).message, "error");
    }
    await refresh();
  };
  return html`
    <div class="columns">
      <div class="grow">
        <section class="panel">
          <h1>${t("view_versions")}</h1>
          <table>
            <thead><tr><th>${t("version")}</th><th>${t("made")}</th><th>${t("ok_images")}</th><th>${t("embeddings")}</th><th></th></tr></thead>
            <tbody>
              ${detail.versions.map(
                (/** @type {any} */ each) => html`
                  <tr key=${each.version} class=${each.current ? "current" : ""}>
                    <th scope="row">${each.version}</th>
                    <td>${time(each.created_at)}</td>
                    <td>${number(each.n_ok)}</td>
                    <td>${each.n_embeddings ? number(each.n_embeddings) : each.detector}</td>
                    <td class="end">
                      ${each.current
                        ? html`<span class="chip ok">${t("in_use")}</span>`
                        : html`<button onClick=${() => roll(each.version)}>${t("rollback")}</button>`}
                    </td>
                  </tr>
                `,
              )}
            </tbody>
          </table>
        </section>
        <${Comparison} roi=${roi} versions=${detail.versions} />
      </div>
      <div class="side">
        <section class="panel">
          <h2>${t("report")}</h2>
          <p>${t("report_text")}</p>
          <p><a class="button" target="_blank" rel="noopener" href=${url(roiPath(roi, "/report"), { recipe_id: roi.recipe_id, format: "html" })}>${t("open_report")}</a></p>
        </section>
        <${Drift} drift=${drift} />
        <section class="panel">
          <h2>${t("history")}</h2>
          <ul class="history" tabindex="0" aria-label=${t("history")}>
            ${audit.map(
              (entry) => html`
                <li key=${entry.id}>
                  <strong>${t(/** @type {Text} */ (`action_${entry.action}`))}</strong>
                  ${entry.n_images ? ` (${number(entry.n_images)})` : entry.version_after && ` → ${t("version")} ${entry.version_after}`}
                  ${entry.outcome !== "done" && html` <span class="badge ng">${entry.outcome}</span>`}
                  <span class="quiet">${time(entry.time)} · ${entry.actor}</span>
                </li>
              `,
            )}
          </ul>
        </section>
      </div>
      ${question}
    </div>
  `;
}

/** @param {{roi: import("../api.js").Roi, versions: any[]}} props */
function Comparison({ roi, versions }) {
  const current = versions.find((each) => each.current)?.version;
  const other = versions.find((each) => !each.current)?.version;
  const [pair, setPair] = useState({ before: other, after: current });
  const [found, setFound] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  useEffect(() => setPair({ before: other, after: current }), [current, other]);

  const compare = async () => {
    setBusy(true);
    setError(null);
    setFound(null);
    await ofRoi(roi, "/comparison", { query: pair }).then(setFound, setError);
    setBusy(false);
  };
  const choose = (/** @type {"before" | "after"} */ name) => html`
    <label class="inline">${t(name)}
      <select name=${name} value=${pair[name]} onChange=${(/** @type {any} */ event) => setPair({ ...pair, [name]: Number(event.target.value) })}>
        ${versions.map((each) => html`<option value=${each.version}>${t("version")} ${each.version}</option>`)}
      </select>
    </label>
  `;
  return html`
    <section class="panel">
      <h2>${t("compare")}</h2>
      ${versions.length < 2
        ? html`<p class="quiet">${t("compare_needs_two")}</p>`
        : html`
            <p class="quiet">${t("compare_text")}</p>
            <div class="row">
              ${choose("before")} ${choose("after")}
              <button class="primary" disabled=${busy || pair.before === pair.after} onClick=${compare}>${t("compare")}</button>
            </div>
          `}
      ${busy && html`<p class="loading" role="status">${t("measuring")}</p>`}
      ${error && html`<${ErrorBox} error=${error} />`}
      ${found && html`<${Changes} roi=${roi} found=${found} />`}
    </section>
  `;
}

/** @param {{roi: import("../api.js").Roi, found: any}} props */
function Changes({ roi, found }) {
  const row = (/** @type {any} */ side) => html`
    <tr>
      <th scope="row">${t("version")} ${side.version}</th>
      <td>${level(side.peak_threshold)}</td>
      <td>${t("n_of", { n: side.n_ok_rejected, of: found.n_ok })}</td>
      <td>${t("n_of", { n: side.n_ng_passed, of: found.n_ng })}</td>
    </tr>
  `;
  const judged = (/** @type {any} */ side) => html`<${VerdictBadge} verdict=${side.verdict} /> <span class="value">${level(side.peak)}</span>`;
  return html`
    <table>
      <thead><tr><th></th><th>${t("threshold")}</th><th>${t("ok_rejected")}</th><th>${t("ng_passed")}</th></tr></thead>
      <tbody>${row(found.before)} ${row(found.after)}</tbody>
    </table>
    <p role="status"><strong>${t("n_changed", { n: found.changed.length, of: found.n_ok + found.n_ng })}</strong></p>
    ${found.changed.length > 0 &&
    html`
      <table class="changes">
        <thead><tr><th></th><th>${t("image")}</th><th>${t("label")}</th><th>${t("before")}</th><th>${t("after")}</th></tr></thead>
        <tbody>
          ${found.changed.map(
            (/** @type {any} */ each) => html`
              <tr key=${each.id}>
                <td class="mini"><${Picture} roi=${roi} rest=${`/images/${each.id}/thumbnail`} alt=${each.file_name} /></td>
                <td class="name">${each.file_name}</td>
                <td><span class=${`badge ${each.label}`}>${each.label.toUpperCase()}</span></td>
                <td>${judged(each.before)}</td>
                <td>${judged(each.after)}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    `}
    ${found.warnings.map((/** @type {string} */ each) => html`<p class="attention">${each}</p>`)}
  `;
}

/** @param {{drift: any}} props */
function Drift({ drift }) {
  if (!drift) return null;
  return html`
    <section class="panel">
      <h2>${t("drift")}</h2>
      ${drift.alarms.length > 0
        ? html`<p class="attention">${t("drift_alarms", { what: drift.alarms.map((/** @type {string} */ each) => t(/** @type {Text} */ (`drift_${each}`))).join(", ") })}</p>`
        : html`<p>${drift.reason ?? t("no_drift")}</p>`}
      <p class="quiet">
        ${t("drift_samples", { n: drift.n })}
        ${drift.rejected !== null && ` · ${t("drift_rejected", { share: percent(drift.rejected) })}`}
      </p>
    </section>
  `;
}
