/** The browser's camera: a picture, cropped to a box. */

import { t } from "../i18n.js";
import { Dialog } from "../parts/dialogs.js";
import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";

/** @param {{close: () => void, taken: (file: File) => Promise<void>}} props */
export function Camera({ close, taken }) {
  const video = useRef(/** @type {HTMLVideoElement | null} */ (null));
  const [problem, setProblem] = useState("");
  const [frame, setFrame] = useState({ width: 0, height: 0 });
  const [box, setBox] = useState({ cx: 50, cy: 50, side: 60 });
  const [n, setN] = useState(0);

  useEffect(() => {
    /** @type {MediaStream | null} */
    let stream = null;
    let isOpen = true;
    // A browser offers its camera to a page of this host, or over HTTPS.
    if (!navigator.mediaDevices) setProblem(t("camera_needs_https"));
    else {
      navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 }, facingMode: "environment" } }).then(
        (found) => {
          stream = found;
          if (!isOpen) found.getTracks().forEach((track) => track.stop());
          else if (video.current) video.current.srcObject = found;
        },
        (error) => setProblem(`${t("no_camera")} ${error.message}`),
      );
    }
    return () => {
      isOpen = false;
      stream?.getTracks().forEach((track) => track.stop());
    };
  }, []);

  const side = (Math.min(frame.width, frame.height) * box.side) / 100;
  const left = Math.max(0, Math.min(frame.width - side, (frame.width * box.cx) / 100 - side / 2));
  const top = Math.max(0, Math.min(frame.height - side, (frame.height * box.cy) / 100 - side / 2));
  const take = async () => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = Math.round(side);
    const source = /** @type {HTMLVideoElement} */ (video.current);
    const [x, y] = [Math.round(left), Math.round(top)];
    canvas.getContext("2d")?.drawImage(source, x, y, canvas.width, canvas.height, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
    const name = `camera-${new Date().toISOString().replace(/[:.]/g, "-")}.png`;
    await taken(new File([blob], name, { type: "image/png" }));
    setN((before) => before + 1);
  };
  const slider = (/** @type {"cx" | "cy" | "side"} */ name, /** @type {string} */ text, least = 0) => html`
    <label class="field">${text}
      <input type="range" min=${least} max="100" value=${box[name]}
        onInput=${(/** @type {any} */ event) => setBox({ ...box, [name]: Number(event.target.value) })} />
    </label>
  `;
  return html`
    <${Dialog} title=${t("camera")} wide close=${close}>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      <div class="camera">
        <video ref=${video} autoplay muted playsinline
          onLoadedMetadata=${(/** @type {any} */ event) => setFrame({ width: event.target.videoWidth, height: event.target.videoHeight })}></video>
        ${side > 0 &&
        html`<svg viewBox=${`0 0 ${frame.width} ${frame.height}`} aria-hidden="true">
          <rect class="crop" x=${left} y=${top} width=${side} height=${side} />
        </svg>`}
      </div>
      ${side > 0 &&
      html`<div class="row">
        ${slider("side", t("box_size"), 5)} ${slider("cx", t("box_x"))} ${slider("cy", t("box_y"))}
        <span class="quiet">${Math.round(side)} × ${Math.round(side)} px</span>
      </div>`}
      <p class="buttons">
        <span class="grow">${n > 0 && t("taken", { n })}</span>
        <button onClick=${close}>${t("close")}</button>
        <button class="primary" disabled=${!side} onClick=${take}>${t("take")}</button>
      </p>
    <//>
  `;
}
