/** Pictures of the gateway. */

import { pictureUrl } from "../api.js";
import { html, useEffect, useState } from "../vendor/htm-preact.js";

/**
 * The address of a picture once it is loaded.
 *
 * @param {import("../api.js").Roi} roi
 * @param {string | null} rest of the path
 * @param {Record<string, any>} [query]
 * @returns {{src: string | null, failed: boolean}}
 */
export function usePicture(roi, rest, query = {}) {
  const name = `${roi.recipe_id}/${roi.role_id}/${roi.roi_id}${rest}${JSON.stringify(query)}`;
  const [loaded, setLoaded] = useState({ name: "", src: /** @type {string | null} */ (null), failed: false });
  useEffect(() => {
    let isWanted = rest !== null;
    if (isWanted) {
      pictureUrl(roi, /** @type {string} */ (rest), query).then(
        (src) => isWanted && setLoaded({ name, src, failed: false }),
        () => isWanted && setLoaded({ name, src: null, failed: true }),
      );
    }
    return () => {
      isWanted = false;
    };
  }, [name]);
  return loaded.name === name ? loaded : { src: null, failed: false };
}

/** @param {{roi: any, rest: string, query?: any, alt: string}} props */
export function Picture({ roi, rest, query, alt }) {
  const { src, failed } = usePicture(roi, rest, query);
  if (failed) return html`<span class="no-picture" role="img" aria-label=${alt}>⚠</span>`;
  return src === null ? html`<span class="no-picture"></span>` : html`<img src=${src} alt=${alt} draggable=${false} />`;
}
