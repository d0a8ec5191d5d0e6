/** What was set for the next fit and not yet sent: kept in the session, for each ROI. */

import { address } from "../places.js";
import { useEffect, useState } from "../vendor/htm-preact.js";

/**
 * `tiles` and `input_size` are empty for those of the ROI. `most_tiles` counts where `tiles` is "most".
 *
 * @typedef {{mm_per_px: string, shape: any, tiles: string, most_tiles: string, input_size: string, version: number}} Draft
 */

/**
 * The scale and the shape of an ROI: those of the fit, until others are set. The tiles and the input size hold for the
 * version for which they were set: the one that the next fit makes has them.
 *
 * @param {import("../api.js").Roi} roi
 * @param {any} detail
 * @returns {[Draft, (change: Partial<Draft>) => void]}
 */
export function useDraft(roi, detail) {
  const name = `patchcore-draft ${address("", roi)}`;
  const version = detail?.version ?? 0;
  const untouched = { tiles: "", most_tiles: "4", input_size: "", version };
  const fitted = {
    mm_per_px: detail ? String(detail.mm_per_px) : "",
    shape: detail?.shape ? JSON.parse(detail.shape) : null,
    ...untouched,
  };
  const current = (/** @type {Draft} */ draft) => (draft.version === version ? draft : { ...draft, ...untouched });
  const [draft, setDraft] = useState(() => current({ ...fitted, ...JSON.parse(sessionStorage.getItem(name) ?? "{}") }));
  useEffect(() => setDraft(current), [version]);
  useEffect(() => {
    if (JSON.stringify(draft) === JSON.stringify(fitted)) sessionStorage.removeItem(name);
    else sessionStorage.setItem(name, JSON.stringify(draft));
  }, [draft]);
  return [draft, (change) => setDraft((/** @type {Draft} */ before) => ({ ...before, ...change }))];
}
