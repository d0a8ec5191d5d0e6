/** The verdict of an image: by a word, a sign and a colour. */

import { t } from "../i18n.js";
import { html } from "../vendor/htm-preact.js";

/** @typedef {import("../i18n.js").Text} Text */

/** @type {Record<string, string>} */
const SIGNS = { ok: "✓", ng: "✕", review: "?", uncalibrated: "–" };

/** @param {{verdict: string, large?: boolean}} props */
export const VerdictBadge = ({ verdict, large }) => html`
  <span class=${`badge ${verdict} ${large ? "large" : ""}`}>
    <span aria-hidden="true">${SIGNS[verdict]}</span> ${t(/** @type {Text} */ (`verdict_${verdict}`))}
  </span>
`;

/** Why an image got its verdict, in a sentence. @param {any} answer of /infer */
export function reasonOf(answer) {
  if (answer.verdict === "ok" || answer.verdict === "review") return t(/** @type {Text} */ (`reason_${answer.verdict}`));
  return t(/** @type {Text} */ (`reason_${answer.verdict_reason ?? "uncalibrated"}`));
}
