/** Add images: files, a folder, or the camera. */

import { t } from "../i18n.js";
import { notify } from "../parts/dialogs.js";
import { droppedFiles, picturesOf, upload } from "../uploads.js";
import { html, useRef, useState } from "../vendor/htm-preact.js";
import { Camera } from "./camera.js";

/** @param {{roi: import("../api.js").Roi, done: () => Promise<void>}} props */
export function Adding({ roi, done }) {
  const [label, setLabel] = useState(/** @type {"ok" | "ng"} */ ("ok"));
  const [progress, setProgress] = useState(/** @type {import("../uploads.js").Progress | null} */ (null));
  const [isOver, setOver] = useState(false);
  const [camera, setCamera] = useState(false);
  const files = useRef(/** @type {HTMLInputElement | null} */ (null));
  const folder = useRef(/** @type {HTMLInputElement | null} */ (null));

  const send = async (/** @type {File[]} */ found) => {
    if (!found.length) return;
    try {
      await upload(roi, label, found, setProgress);
    } catch (error) {
      notify(/** @type {Error} */ (error).message, "error");
    }
    await done();
  };
  const drop = async (/** @type {any} */ event) => {
    event.preventDefault();
    setOver(false);
    await send(await droppedFiles(event.dataTransfer));
  };
  const chosen = async (/** @type {any} */ event, /** @type {boolean} */ isFolder) => {
    const found = isFolder ? picturesOf(event.target.files) : [...event.target.files];
    event.target.value = "";
    await send(found);
  };
  const choice = (/** @type {"ok" | "ng"} */ value, /** @type {string} */ text) => html`
    <button class=${`${value} ${label === value ? "on" : ""}`} aria-pressed=${label === value} onClick=${() => setLabel(value)}>
      ${text}
    </button>
  `;
  return html`
    <section class="panel">
      <h2>${t("add_images")}</h2>
      <div class="segments wide" role="group" aria-label=${t("label")}>
        ${choice("ok", t("are_ok"))} ${choice("ng", t("are_ng"))}
      </div>
      <div class=${`drop ${isOver ? "over" : ""}`} onDragOver=${(/** @type {Event} */ event) => (event.preventDefault(), setOver(true))}
        onDragLeave=${() => setOver(false)} onDrop=${drop}>
        <p>${t("drop_here")}</p>
        <p class="buttons center">
          <button onClick=${() => files.current?.click()}>${t("choose_files")}</button>
          <button onClick=${() => folder.current?.click()}>${t("choose_folder")}</button>
          <button onClick=${() => setCamera(true)}>${t("camera")}</button>
        </p>
        <input class="hidden" type="file" name="files" multiple tabindex="-1" aria-label=${t("choose_files")} ref=${files}
          onChange=${(/** @type {Event} */ event) => chosen(event, false)} />
        <input class="hidden" type="file" name="folder" webkitdirectory tabindex="-1" aria-label=${t("choose_folder")} ref=${folder}
          onChange=${(/** @type {Event} */ event) => chosen(event, true)} />
      </div>
      ${progress && html`<${Uploaded} progress=${progress} />`}
      ${camera && html`<${Camera} close=${() => setCamera(false)} taken=${(/** @type {File} */ file) => send([file])} />`}
    </section>
  `;
}

/** @param {{progress: import("../uploads.js").Progress}} props */
function Uploaded({ progress }) {
  const { done, total, added, duplicates, refused } = progress;
  return html`
    <div class="uploaded" role="status">
      <progress max=${total} value=${done} aria-label=${t("upload")}></progress>
      <p>
        ${t("uploaded", { done, total, added })}
        ${duplicates > 0 && html` · ${t("duplicates", { n: duplicates })}`}
      </p>
      ${refused.length > 0 &&
      html`
        <p class="problem">${t("refused", { n: refused.length })}</p>
        <ul class="refused" tabindex="0" aria-label=${t("refused", { n: refused.length })}>
          ${refused.slice(0, 50).map((each) => html`<li><strong>${each.file}</strong>: ${each.message} <span class="quiet">${each.hint}</span></li>`)}
        </ul>
      `}
    </div>
  `;
}
