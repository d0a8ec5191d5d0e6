/** Uploads of many files: a few at a time, with the error of each file. */

import { ApiError, ofRoi } from "./api.js";

/** @typedef {import("./api.js").Roi} Roi */
/** @typedef {{file: string, message: string, hint: string}} Refused */
/** @typedef {{total: number, done: number, added: number, duplicates: number, refused: Refused[]}} Progress */

const BATCH = 10;
const BATCH_BYTES = 24 * 2 ** 20;
const AT_ONCE = 2;

/**
 * Store files with a label. A request is stored whole or not at all, so the files of a refused one are sent alone.
 *
 * @param {Roi} roi
 * @param {"ok" | "ng"} label
 * @param {File[]} files
 * @param {(progress: Progress) => void} tell
 * @returns {Promise<Progress>}
 */
export async function upload(roi, label, files, tell) {
  /** @type {Progress} */
  const progress = { total: files.length, done: 0, added: 0, duplicates: 0, refused: [] };
  const batches = inBatches(files);
  tell({ ...progress });

  /** @param {File[]} batch */
  async function send(batch) {
    try {
      const answer = await store(roi, label, batch);
      progress.done += batch.length;
      progress.added += answer.n_added;
      progress.duplicates += answer.duplicates;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      const isOfOneFile = error.status >= 400 && error.status < 500 && error.status !== 401 && error.status !== 403;
      if (batch.length > 1 && isOfOneFile) {
        for (const file of batch) await send([file]);
        return;
      }
      progress.done += batch.length;
      progress.refused.push(...batch.map((f) => ({ file: f.name, message: error.message, hint: error.hint })));
    }
    tell({ ...progress });
  }

  async function work() {
    for (let batch = batches.shift(); batch; batch = batches.shift()) await send(batch);
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return progress;
}

/**
 * @param {Roi} roi
 * @param {"ok" | "ng"} label
 * @param {File[]} files
 * @param {string[]} [metas]
 */
export function store(roi, label, files, metas = []) {
  const form = new FormData();
  form.append("label", label);
  for (const file of files) form.append("images", file, file.name);
  for (const meta of metas) form.append("metas", meta);
  return ofRoi(roi, "/images", { form });
}

/** @param {File[]} files */
function inBatches(files) {
  /** @type {File[][]} */
  const batches = [];
  let bytes = 0;
  for (const file of files) {
    const last = batches.at(-1);
    bytes += file.size;
    if (last && last.length < BATCH && bytes <= BATCH_BYTES) last.push(file);
    else {
      batches.push([file]);
      bytes = file.size;
    }
  }
  return batches;
}

const PICTURE = /\.(png|jpe?g|bmp|tiff?)$/i;

/**
 * The files of a drop, also those in dropped folders. Of folders, only pictures count.
 *
 * @param {DataTransfer} data
 * @returns {Promise<File[]>}
 */
export async function droppedFiles(data) {
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry !== null);
  if (!entries.length) return [...data.files];
  /** @type {File[]} */
  const files = [];
  /** @param {any} entry @param {boolean} isTop */
  async function read(entry, isTop) {
    if (entry.isFile) {
      const file = await new Promise((done, fail) => entry.file(done, fail));
      if (isTop || PICTURE.test(file.name)) files.push(file);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, fail) => reader.readEntries(done, fail));
      if (!some.length) return;
      for (const each of some) await read(each, false);
    }
  }
  for (const entry of entries) await read(entry, true);
  return files.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
}

/** @param {FileList | null} list */
export const picturesOf = (list) => [...(list ?? [])].filter((file) => PICTURE.test(file.name));
