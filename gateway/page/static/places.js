/** Addresses of the views. */

/**
 * @param {string} view
 * @param {import("./api.js").Roi | null} roi
 */
export function address(view, roi) {
  if (!roi) return "#/rois";
  return `#/${view}?${new URLSearchParams({ recipe: roi.recipe_id, role: roi.role_id, roi: roi.roi_id })}`;
}
