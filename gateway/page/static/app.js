/** The page: its frame, the chosen ROI, and the views. */

import { call, detailOf, forgetKey, hasKey, onKeyNeeded } from "./api.js";
import { LANGUAGES, language, t, useLanguage, wantedLanguage } from "./i18n.js";
import { ErrorBox, KeyDialog, Notices } from "./parts/dialogs.js";
import { address } from "./places.js";
import { html, render, useCallback, useEffect, useLayoutEffect, useState } from "./vendor/htm-preact.js";
import { Calibrate } from "./views/calibrate.js";
import { Review } from "./views/review.js";
import { Rois } from "./views/rois.js";
import { Teach } from "./views/teach.js";
import { Try } from "./views/try.js";
import { Versions } from "./views/versions.js";

/** @typedef {import("./api.js").Roi} Roi */
/** @typedef {import("./i18n.js").Text} Text */

const VIEWS = { teach: Teach, calibrate: Calibrate, try: Try, review: Review, versions: Versions };

/** The view and the ROI in the address, so that a reload and the button back work. */
function place() {
  const [view, query] = location.hash.replace(/^#\/?/, "").split("?");
  const given = new URLSearchParams(query);
  const role_id = given.get("role");
  const roi_id = given.get("roi");
  const roi = role_id && roi_id ? { recipe_id: given.get("recipe") || "default", role_id, roi_id } : null;
  return { view: view in VIEWS && roi ? view : "rois", roi };
}

/** @param {{roi: Roi}} props */
const RoiName = ({ roi }) => html`
  <span class="roi-name">
    ${roi.recipe_id !== "default" && html`<span class="quiet">${roi.recipe_id} / </span>`}
    <span>${roi.role_id}</span> <span class="quiet">/</span> <strong>${roi.roi_id}</strong>
  </span>
`;

function App() {
  const [at, setAt] = useState(place);
  const [, setShown] = useState(language);
  const [detail, setDetail] = useState(/** @type {any} */ (undefined));
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  const [isRandom, setRandom] = useState(false);
  const [ask, setAsk] = useState(/** @type {any} */ (null));

  useEffect(() => {
    onKeyNeeded(
      (wrong) => new Promise((done) => setAsk({ wrong, done: (/** @type {string} */ key) => (setAsk(null), done(key)) })),
    );
    call("/health").then((health) => setRandom(health.model_weights === "seed"), setError);
  }, []);
  useLayoutEffect(() => {
    // At once: an effect runs after the first paint, and would miss an address that changes before it.
    const move = () => setAt(place());
    addEventListener("hashchange", move);
    return () => removeEventListener("hashchange", move);
  }, []);

  const name = at.roi && address("", at.roi);
  const refresh = useCallback(async () => {
    if (!at.roi) return;
    try {
      setError(null);
      setDetail(await detailOf(at.roi));
    } catch (failure) {
      setError(/** @type {Error} */ (failure));
    }
  }, [name]);
  useEffect(() => {
    setDetail(undefined);
    refresh();
  }, [refresh]);

  const choose = async (/** @type {string} */ wanted) => {
    await useLanguage(wanted, true);
    setShown(wanted);
  };
  const View = at.view === "rois" ? null : VIEWS[/** @type {keyof typeof VIEWS} */ (at.view)];
  const tabs = /** @type {[string, Text][]} */ (Object.keys(VIEWS).map((view) => [view, `view_${view}`]));
  return html`
    <header class="bar">
      <a class="brand" href="#/rois" title=${t("choose_roi")}><span class="mark" aria-hidden="true"></span>PatchCore</a>
      ${at.roi &&
      html`
        <a class="roi-button" href="#/rois" title=${t("choose_roi")}><${RoiName} roi=${at.roi} /></a>
        <nav aria-label=${t("views")}>
          ${tabs.map(
            ([view, text]) => html`
              <a href=${address(view, at.roi)} aria-current=${view === at.view ? "page" : undefined}>${t(text)}</a>
            `,
          )}
        </nav>
      `}
      <span class="grow"></span>
      ${hasKey() &&
      html`<button class="plain" onClick=${() => (forgetKey(), location.reload())}>${t("forget_key")}</button>`}
      <label class="language">
        <span class="hidden">${t("language")}</span>
        <select value=${language} onChange=${(/** @type {any} */ event) => choose(event.target.value)}>
          ${Object.entries(LANGUAGES).map(([code, each]) => html`<option value=${code}>${each}</option>`)}
        </select>
      </label>
    </header>
    ${isRandom && html`<p class="banner">${t("random_weights")}</p>`}
    <main class=${`view-${at.view}`}>
      ${error && html`<${ErrorBox} error=${error} again=${refresh} />`}
      ${at.view === "rois" && html`<${Rois} />`}
      ${View &&
      at.roi &&
      detail !== undefined &&
      html`<${View} key=${`${at.view}${name}`} roi=${at.roi} detail=${detail} refresh=${refresh} />`}
    </main>
    <${Notices} />
    ${ask && html`<${KeyDialog} wrong=${ask.wrong} done=${ask.done} />`}
  `;
}

await useLanguage(wantedLanguage());
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
