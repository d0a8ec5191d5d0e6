/** Texts in the user's language. `texts/en.js` has all of them; the others are translations of it. */

import en from "./texts/en.js";

/** @typedef {keyof typeof en} Text */

export const LANGUAGES = { en: "English", it: "Italiano", es: "Español", de: "Deutsch" };
const LANGUAGE = "patchcore-language";

/** @type {Record<string, string>} */
let texts = en;
export let language = "en";

/** The language chosen before, else the browser's, else English. */
export function wantedLanguage() {
  const wanted = [localStorage.getItem(LANGUAGE), ...navigator.languages].map((each) => each?.slice(0, 2));
  return wanted.find((each) => each && each in LANGUAGES) ?? "en";
}

/**
 * @param {string} wanted
 * @param {boolean} [keep] whether it is the user's choice
 */
export async function useLanguage(wanted, keep = false) {
  texts = wanted === "en" ? en : { ...en, ...(await import(`./texts/${wanted}.js`)).default };
  language = wanted;
  document.documentElement.lang = wanted;
  if (keep) localStorage.setItem(LANGUAGE, wanted);
}

/**
 * A text with its values put in. `name_one` is used where `n` is 1.
 *
 * @param {Text} name
 * @param {Record<string, string | number>} [values]
 */
export function t(name, values = {}) {
  const one = values.n === 1 ? texts[`${name}_one`] : undefined;
  const text = one ?? texts[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (_, value) => {
    const given = values[value];
    return typeof given === "number" ? number(given) : (given ?? "");
  });
}

/** The language with the country of the browser, where they fit: 26/11 in Britain, 11/26 in America. */
const locale = () => navigator.languages.find((each) => each.startsWith(language)) ?? language;

/** @param {number} value @param {number} [digits] */
export const number = (value, digits = 3) =>
  new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value);

/** A level of the peak: always three decimals, so that a column lines up. @param {number | null | undefined} value */
export const level = (value) =>
  value === null || value === undefined
    ? "–"
    : new Intl.NumberFormat(locale(), { minimumFractionDigits: 3, maximumFractionDigits: 3 }).format(value);

/** @param {number} share */
export const percent = (share) =>
  new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 1 }).format(share);

/** @param {string | number} when an ISO time, or seconds since 1970 */
export const time = (when) =>
  new Intl.DateTimeFormat(locale(), { dateStyle: "short", timeStyle: "short" }).format(
    typeof when === "number" ? when * 1000 : new Date(when),
  );

/** @param {number} bytes */
export const size = (bytes) =>
  new Intl.NumberFormat(locale(), {
    style: "unit",
    unit: bytes < 2 ** 20 ? "kilobyte" : "megabyte",
    maximumFractionDigits: 1,
  }).format(bytes < 2 ** 20 ? bytes / 1024 : bytes / 2 ** 20);

/**
 * Read a number as people type it, with a point or a comma. Null where it is none.
 *
 * @param {string} text
 */
export function typedNumber(text) {
  const value = Number(text.trim().replace(",", "."));
  return text.trim() === "" || !Number.isFinite(value) ? null : value;
}
