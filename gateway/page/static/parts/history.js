/** Changes of stored images that can be taken back. */

import { ofRoi } from "../api.js";
import { store } from "../uploads.js";

/** @typedef {import("../api.js").Roi} Roi */
/** @typedef {{name: string, redo: () => Promise<void>, undo: () => Promise<void>}} Step */

const MOST = 100;

export class History {
  /** @type {Step[]} */
  done = [];
  /** @type {Step[]} */
  undone = [];

  /** @param {Step} step */
  async add(step) {
    await step.redo();
    this.done = [...this.done.slice(1 - MOST), step];
    this.undone = [];
  }

  async undo() {
    const step = this.done.at(-1);
    if (!step) return null;
    await step.undo();
    this.done.pop();
    this.undone.push(step);
    return step;
  }

  async redo() {
    const step = this.undone.at(-1);
    if (!step) return null;
    await step.redo();
    this.undone.pop();
    this.done.push(step);
    return step;
  }
}

/**
 * @param {Roi} roi
 * @param {{id: string, label: string}[]} images
 * @param {"ok" | "ng"} label
 * @param {string} name
 * @returns {Step}
 */
export function relabelled(roi, images, label, name) {
  const changed = images.filter((image) => image.label !== label);
  const put = async (/** @type {(image: {label: string}) => string} */ labelOf) => {
    for (const image of changed) {
      await ofRoi(roi, `/images/${image.id}`, { method: "PATCH", json: { label: labelOf(image) } });
    }
  };
  return { name, redo: () => put(() => label), undo: () => put((image) => image.label) };
}

/**
 * Images are fetched before they are deleted, and stored again to take it back.
 *
 * @param {Roi} roi
 * @param {{id: string, label: "ok" | "ng", file_name: string, has_metadata: boolean}[]} images
 * @param {string} name
 * @returns {Step}
 */
export function deleted(roi, images, name) {
  /** @type {{label: "ok" | "ng", file: File, meta: string}[]} */
  let kept = [];
  return {
    name,
    async redo() {
      kept = [];
      for (const image of images) {
        const blob = await ofRoi(roi, `/images/${image.id}`, { as: "blob" });
        const meta = image.has_metadata ? JSON.stringify(await ofRoi(roi, `/images/${image.id}/metadata`)) : "";
        kept.push({ label: image.label, file: new File([blob], image.file_name, { type: blob.type }), meta });
        await ofRoi(roi, `/images/${image.id}`, { method: "DELETE" });
      }
    },
    async undo() {
      for (const { label, file, meta } of kept) await store(roi, label, [file], [meta]);
    },
  };
}
