/** The HTTP API of the gateway, as any client sees it. */

/**
 * @typedef {{recipe_id: string, role_id: string, roi_id: string}} Roi
 * @typedef {{method?: string, query?: Record<string, any>, json?: any, form?: FormData, signal?: AbortSignal,
 *   as?: "json" | "blob", quiet?: boolean}} Options
 */

const ROOT = document.querySelector("meta[name=gateway-root]")?.getAttribute("content") ?? "";
const KEY = "patchcore-api-key";
const TRIES = 6;

/** An error of the gateway, or of the way to it. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{code?: string, hint?: string, status?: number, requestId?: string}} [about]
   */
  constructor(message, { code = "unreachable", hint = "", status = 0, requestId = "" } = {}) {
    super(message);
    this.code = code;
    this.hint = hint;
    this.status = status;
    this.requestId = requestId;
  }
}

/** @type {(wrong: boolean) => Promise<string>} */
let askForKey = () => Promise.reject(new ApiError("an API key is needed", { code: "unauthorized", status: 401 }));
/** @type {Promise<string> | null} */
let asked = null;

/** @param {(wrong: boolean) => Promise<string>} ask shows a dialog and returns what was typed */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const forgetKey = () => sessionStorage.removeItem(KEY);

/** @returns {Record<string, string>} */
function authorization() {
  const key = sessionStorage.getItem(KEY);
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/** @param {number} ms */
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/**
 * @param {string} path
 * @param {Record<string, any>} [query]
 */
export function url(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `${ROOT}${path}${text ? `?${text}` : ""}`;
}

/**
 * Send a request. It is sent again while the gateway is busy, and once the key that it needs is there.
 *
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<any>}
 */
export async function call(path, options = {}) {
  const { method = options.json || options.form ? "POST" : "GET", query, json, form, signal, as = "json" } = options;
  for (let attempt = 1; ; attempt += 1) {
    const sent = authorization();
    /** @type {Record<string, string>} */
    const headers = { ...sent, ...(json === undefined ? {} : { "Content-Type": "application/json" }) };
    let response;
    try {
      const body = form ?? (json === undefined ? undefined : JSON.stringify(json));
      response = await fetch(url(path, query), { method, headers, body, signal });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError(String(error instanceof Error ? error.message : error));
    }
    if (response.ok) return as === "blob" ? response.blob() : response.json();
    const failure = await failureOf(response);
    if (failure.status === 401 && !options.quiet) {
      if (sent.Authorization === authorization().Authorization) {
        asked ??= askForKey(sent.Authorization !== undefined).finally(() => (asked = null));
        sessionStorage.setItem(KEY, await asked);
      }
      continue;
    }
    const again = failure.status === 429 || failure.code === "engine_unavailable";
    if (!again || attempt === TRIES) throw failure;
    await sleep(1000 * Math.min(10, Number(response.headers.get("Retry-After")) || attempt));
  }
}

/** @param {Response} response */
async function failureOf(response) {
  const about = { status: response.status, requestId: response.headers.get("X-Request-ID") ?? "" };
  try {
    const { error } = await response.json();
    return new ApiError(error.message, { ...about, code: error.code, hint: error.hint });
  } catch {
    return new ApiError(`${response.status} ${response.statusText}`, { ...about, code: "not_a_gateway" });
  }
}

/**
 * @param {Roi} roi
 * @param {string} [rest]
 */
export const roiPath = (roi, rest = "") =>
  `/rois/${encodeURIComponent(roi.role_id)}/${encodeURIComponent(roi.roi_id)}${rest}`;

/**
 * A request about an ROI.
 *
 * @param {Roi} roi
 * @param {string} rest of the path
 * @param {Options} [options]
 */
export const ofRoi = (roi, rest, options = {}) =>
  call(roiPath(roi, rest), { ...options, query: { recipe_id: roi.recipe_id, ...options.query } });

/**
 * All images of an ROI; none for one that has neither.
 *
 * @param {Roi} roi
 */
export async function allImages(roi) {
  const limit = 1000;
  const images = [];
  for (let offset = 0; ; offset += limit) {
    let page;
    try {
      page = await ofRoi(roi, "/images", { query: { offset, limit } });
    } catch (error) {
      if (error instanceof ApiError && error.code === "unknown_roi") return [];
      throw error;
    }
    images.push(...page.images);
    if (images.length >= page.total || !page.images.length) return images;
  }
}

/**
 * The detail of an ROI, or null where it was never fitted.
 *
 * @param {Roi} roi
 */
export async function detailOf(roi) {
  try {
    return await ofRoi(roi, "");
  } catch (error) {
    if (error instanceof ApiError && error.code === "unknown_roi") return null;
    throw error;
  }
}

/**
 * Inspect a file.
 *
 * @param {Roi} roi
 * @param {Blob} file
 * @param {string} name
 * @param {{mm_per_px: number, shape: any, explain?: boolean}} fields
 */
export function infer(roi, file, name, { mm_per_px, shape, explain = true }) {
  const form = new FormData();
  for (const [field, value] of Object.entries({ ...roi, mm_per_px, explain })) form.append(field, String(value));
  if (shape) form.append("shape", JSON.stringify(shape));
  form.append("image", file, name);
  return call("/infer", { form });
}

/**
 * Learn the stored OK images.
 *
 * @param {Roi} roi
 * @param {{mm_per_px: number, shape: any, exclude_suspects: boolean, tiles: string, input_size: string}} fields
 *   empty tiles or input size: those of the ROI
 */
export function fit(roi, { shape, tiles, input_size, ...others }) {
  const form = new FormData();
  for (const [field, value] of Object.entries({ ...roi, ...others })) form.append(field, String(value));
  if (tiles) form.append("tiles", tiles);
  if (input_size) form.append("input_size", input_size);
  if (shape) form.append("shape", JSON.stringify(shape));
  return call("/fit_ok", { form });
}

const KEPT = 600;
/** @type {Map<string, Promise<string>>} */
const pictures = new Map();

/**
 * The address of a picture of the gateway for an `<img>`, which cannot send a key. The pictures used last are kept.
 *
 * @param {Roi} roi
 * @param {string} rest of the path
 * @param {Record<string, any>} [query]
 */
export function pictureUrl(roi, rest, query = {}) {
  const name = url(roiPath(roi, rest), { recipe_id: roi.recipe_id, ...query });
  let found = pictures.get(name);
  if (found === undefined) {
    found = ofRoi(roi, rest, { as: "blob", query }).then((blob) => URL.createObjectURL(blob));
    found.catch(() => pictures.delete(name));
  }
  pictures.delete(name);
  pictures.set(name, found);
  if (pictures.size > KEPT) {
    const [[oldest, gone]] = pictures;
    pictures.delete(oldest);
    gone.then((address) => URL.revokeObjectURL(address), () => {});
  }
  return found;
}
