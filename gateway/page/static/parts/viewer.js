/** A picture to zoom and pan, with layers over it that move along. */

import { t } from "../i18n.js";
import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";

const STEP = 1.25;
const MOST = 16;
const PAN = 40;

/**
 * @param {{src: string | null, width: number, height: number, label: string, children?: any,
 *   onPoint?: (x: number, y: number, phase: "down" | "move" | "up") => void}} props
 * `children` are SVG elements in pixels of the picture. With `onPoint`, one finger or the left button points in place of
 * panning.
 */
export function Viewer({ src, width, height, label, children, onPoint }) {
  const frame = useRef(/** @type {HTMLElement | null} */ (null));
  const pointers = useRef(/** @type {Map<number, {x: number, y: number}>} */ (new Map()));
  const [room, setRoom] = useState({ w: 1, h: 1 });
  const [view, setView] = useState({ zoom: 1, x: 0, y: 0 });

  useEffect(() => {
    const element = /** @type {HTMLElement} */ (frame.current);
    const watch = new ResizeObserver(() => setRoom({ w: element.clientWidth, h: element.clientHeight }));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);
  useEffect(() => setView({ zoom: 1, x: 0, y: 0 }), [src]);

  const fitted = Math.min(room.w / width, room.h / height);
  const scale = fitted * view.zoom;
  const left = (room.w - width * scale) / 2 + view.x;
  const top = (room.h - height * scale) / 2 + view.y;

  /** Zoom so that the point under (x, y) of the frame stays. */
  const zoomAt = (/** @type {number} */ factor, x = room.w / 2, y = room.h / 2) =>
    setView((v) => {
      const zoom = Math.min(MOST, Math.max(1, v.zoom * factor));
      const by = zoom / v.zoom;
      if (zoom === 1) return { zoom, x: 0, y: 0 };
      const [dx, dy] = [x - room.w / 2, y - room.h / 2];
      return { zoom, x: dx - by * (dx - v.x), y: dy - by * (dy - v.y) };
    });
  const pan = (/** @type {number} */ dx, /** @type {number} */ dy) =>
    setView((v) => (v.zoom === 1 ? v : { ...v, x: v.x + dx, y: v.y + dy }));
  const inFrame = (/** @type {{clientX: number, clientY: number}} */ event) => {
    const box = /** @type {HTMLElement} */ (frame.current).getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const point = (/** @type {any} */ event, /** @type {"down" | "move" | "up"} */ phase) => {
    const { x, y } = inFrame(event);
    onPoint?.((x - left) / scale, (y - top) / scale, phase);
  };
  const down = (/** @type {any} */ event) => {
    if (event.button) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    pointers.current.set(event.pointerId, inFrame(event));
    if (onPoint && pointers.current.size === 1) point(event, "down");
  };
  const move = (/** @type {any} */ event) => {
    const before = pointers.current.get(event.pointerId);
    if (!before) return;
    const now = inFrame(event);
    const other = [...pointers.current].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const distance = (/** @type {any} */ a) => Math.hypot(a.x - other.x, a.y - other.y) || 1;
      zoomAt(distance(now) / distance(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
    } else if (onPoint) point(event, "move");
    else pan(now.x - before.x, now.y - before.y);
    pointers.current.set(event.pointerId, now);
  };
  const up = (/** @type {any} */ event) => {
    if (pointers.current.delete(event.pointerId) && onPoint) point(event, "up");
  };
  const wheel = (/** @type {any} */ event) => {
    event.preventDefault();
    const { x, y } = inFrame(event);
    zoomAt(event.deltaY < 0 ? STEP : 1 / STEP, x, y);
  };
  const key = (/** @type {KeyboardEvent} */ event) => {
    const moves = { ArrowLeft: [PAN, 0], ArrowRight: [-PAN, 0], ArrowUp: [0, PAN], ArrowDown: [0, -PAN] };
    if (event.key === "+") zoomAt(STEP);
    else if (event.key === "-") zoomAt(1 / STEP);
    else if (event.key === "0") setView({ zoom: 1, x: 0, y: 0 });
    else if (view.zoom > 1 && event.key in moves) {
      const [dx, dy] = moves[/** @type {keyof typeof moves} */ (event.key)];
      pan(dx, dy);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const place = { left: `${left}px`, top: `${top}px`, width: `${width * scale}px`, height: `${height * scale}px` };
  return html`
    <div class="viewer">
      <div class=${`frame ${onPoint ? "pointing" : ""}`} ref=${frame} tabindex="0" role="group" aria-label=${label}
        onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${up} onWheel=${wheel} onKeyDown=${key}>
        ${src && html`<img class="layer" style=${place} src=${src} alt=${label} draggable=${false} />`}
        ${width > 1 &&
        html`<svg class="layer" style=${place} viewBox=${`0 0 ${width} ${height}`} aria-hidden="true">${children}</svg>`}
      </div>
      <div class="zoom">
        <button aria-label=${t("zoom_out")} title="−" onClick=${() => zoomAt(1 / STEP)}>−</button>
        <span>${Math.round(100 * scale)} %</span>
        <button aria-label=${t("zoom_in")} title="+" onClick=${() => zoomAt(STEP)}>+</button>
        <button title="0" onClick=${() => setView({ zoom: 1, x: 0, y: 0 })}>${t("zoom_fit")}</button>
      </div>
    </div>
  `;
}
