/** Dialogs, errors, and notices at the edge of the page. */

import { t } from "../i18n.js";
import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";

/**
 * A modal dialog, in the element that browsers have for it: it keeps the focus and closes with Escape.
 *
 * @param {{title: string, close?: () => void, children?: any, wide?: boolean}} props
 */
export function Dialog({ title, close, children, wide }) {
  const element = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    element.current?.showModal();
  }, []);
  const cancel = (/** @type {Event} */ event) => {
    event.preventDefault();
    close?.();
  };
  return html`
    <dialog ref=${element} class=${wide ? "wide" : ""} aria-label=${title} onCancel=${cancel}>
      <h2>${title}</h2>
      ${children}
    </dialog>
  `;
}

/** @param {{wrong: boolean, done: (key: string) => void}} props */
export function KeyDialog({ wrong, done }) {
  const [key, setKey] = useState("");
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (key.trim()) done(key.trim());
  };
  return html`
    <${Dialog} title=${t("key_title")}>
      <form onSubmit=${submit}>
        <p>${t("key_text")}</p>
        ${wrong && html`<p class="problem" role="alert">${t("key_wrong")}</p>`}
        <label class="field">
          ${t("key")}
          <input type="password" name="key" autocomplete="off" value=${key} autofocus
            onInput=${(/** @type {any} */ event) => setKey(event.target.value)} />
        </label>
        <p class="buttons"><button class="primary" type="submit">${t("use_key")}</button></p>
      </form>
    <//>
  `;
}

/**
 * A question with two answers.
 *
 * @param {{title: string, text: any, yes: string, danger?: boolean, done: (agreed: boolean) => void}} props
 */
export function Confirm({ title, text, yes, danger, done }) {
  return html`
    <${Dialog} title=${title} close=${() => done(false)}>
      <p>${text}</p>
      <p class="buttons">
        <button onClick=${() => done(false)}>${t("cancel")}</button>
        <button class=${danger ? "danger" : "primary"} onClick=${() => done(true)}>${yes}</button>
      </p>
    <//>
  `;
}

/**
 * Returns a dialog to show, or nothing, and a function that asks.
 *
 * @returns {[any, (question: {title: string, text: any, yes: string, danger?: boolean}) => Promise<boolean>]}
 */
export function useConfirm() {
  const [question, setQuestion] = useState(/** @type {any} */ (null));
  const ask = (/** @type {any} */ given) =>
    new Promise((done) =>
      setQuestion({ ...given, done: (/** @type {boolean} */ agreed) => (setQuestion(null), done(agreed)) }),
    );
  return [question && html`<${Confirm} ...${question} />`, /** @type {any} */ (ask)];
}

/** @param {{error: any, again?: () => void}} props */
export const ErrorBox = ({ error, again }) => html`
  <div class="problem box" role="alert">
    <strong>${error.message}</strong>
    ${error.hint && html`<p>${error.hint}</p>`}
    ${error.requestId && html`<p class="quiet">${t("request_id")} ${error.requestId}</p>`}
    ${again && html`<button onClick=${again}>${t("again")}</button>`}
  </div>
`;

/** @param {{warnings: string[]}} props */
export const Warnings = ({ warnings }) =>
  warnings.length > 0 &&
  html`<ul class="warnings" aria-label=${t("warnings")}>${warnings.map((each) => html`<li>${each}</li>`)}</ul>`;

const SHOWN_MS = 6000;
/** @type {(notice: {text: string, kind: string, id: number}) => void} */
let show = () => {};
let notices = 0;

/** @param {string} text @param {"done" | "error"} [kind] */
export function notify(text, kind = "done") {
  notices += 1;
  show({ text, kind, id: notices });
}

export function Notices() {
  const [shown, setShown] = useState(/** @type {{text: string, kind: string, id: number}[]} */ ([]));
  const drop = (/** @type {number} */ id) => setShown((before) => before.filter((each) => each.id !== id));
  show = (notice) => {
    setShown((before) => [...before.slice(-3), notice]);
    if (notice.kind !== "error") setTimeout(() => drop(notice.id), SHOWN_MS);
  };
  return html`
    <div class="notices" role="status" aria-live="polite">
      ${shown.map(
        (each) => html`
          <div class=${`notice ${each.kind}`} key=${each.id}>
            <span>${each.text}</span>
            <button class="plain" aria-label=${t("close")} onClick=${() => drop(each.id)}>×</button>
          </div>
        `,
      )}
    </div>
  `;
}
