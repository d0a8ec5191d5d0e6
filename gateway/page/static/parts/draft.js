/** What was set for the next fit and not yet sent: kept in the session, for each ROI. */

import { address } from "../places.js";
import { useEffect, useState } from "../vendor/htm-preact.js";

/** @typedef {{mm_per_px: string, shape: any}} Draft */

/**
 * The scale and the shape of an ROI: those of the fit, until others are set.
 *
 * @param {import("../api.js").Roi} roi
 * @param {any} detail
 * @returns {[Draft, (change: Partial<Draft>) => void]}
 */
export function useDraft(roi, detail) {
  const name = `patchcore-draft ${address("", roi)}`;
  const fitted = {
    mm_per_px: detail ? String(detail.mm_per_px) : "",
    shape: detail?.shape ? JSON.parse(detail.shape) : null,
  };
  const [draft, setDraft] = useState(() => ({ ...fitted, ...JSON.parse(sessionStorage.getItem(name) ?? "{}") }));
  useEffect(() => {
    if (JSON.stringify(draft) === JSON.stringify(fitted)) sessionStorage.removeItem(name);
    else sessionStorage.setItem(name, JSON.stringify(draft));
  }, [draft]);
  return [draft, (change) => setDraft((/** @type {Draft} */ before) => ({ ...before, ...change }))];
}
