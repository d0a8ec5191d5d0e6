/** The peaks of OK and NG images, with lines to drag. */

import { level, t } from "../i18n.js";
import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";

const HEIGHT = 300;
const ROOM = { left: 44, right: 16, top: 26, bottom: 54 };
const RUG = 9;
const BINS = 48;
const FINE = 0.001;
const COARSE = 0.01;

/**
 * @param {number} low
 * @param {number} high
 */
function ticksOf(low, high) {
  const rough = (high - low) / 8;
  const step = [1, 2, 5, 10].map((n) => n * 10 ** Math.floor(Math.log10(rough))).find((each) => each >= rough) ?? rough;
  const ticks = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) ticks.push(value);
  return ticks;
}

/**
 * @typedef {{id: string, label: string, level: number}} Image
 * @typedef {{name: string, text: string, value: number, set: (value: number) => void}} Line
 * @param {{images: Image[], lines: Line[], label: string}} props
 */
export function Histogram({ images, lines, label }) {
  const element = useRef(/** @type {HTMLElement | null} */ (null));
  const dragged = useRef(/** @type {Line | null} */ (null));
  const [width, setWidth] = useState(800);
  useEffect(() => {
    const own = /** @type {HTMLElement} */ (element.current);
    const watch = new ResizeObserver(() => setWidth(Math.max(320, own.clientWidth)));
    watch.observe(own);
    return () => watch.disconnect();
  }, []);

  // The range does not follow the lines: it would move under the finger that drags them.
  const levels = images.map((image) => image.level);
  const spread = Math.max(...levels) - Math.min(...levels) || 0.1;
  const low = Math.max(0, Math.min(...levels) - 0.08 * spread);
  const high = Math.max(...levels) + 0.12 * spread;
  const bin = (high - low) / BINS;
  const counts = { ok: Array(BINS).fill(0), ng: Array(BINS).fill(0) };
  for (const image of images) {
    counts[image.label === "ng" ? "ng" : "ok"][Math.min(BINS - 1, Math.floor((image.level - low) / bin))] += 1;
  }
  const most = Math.max(1, ...counts.ok.map((n, i) => n + counts.ng[i]));
  const inner = { w: width - ROOM.left - ROOM.right, h: HEIGHT - ROOM.top - ROOM.bottom };
  const x = (/** @type {number} */ value) => ROOM.left + ((value - low) / (high - low)) * inner.w;
  const y = (/** @type {number} */ count) => ROOM.top + inner.h * (1 - count / most);
  const clamped = (/** @type {number} */ value) => Math.min(high, Math.max(low, value));

  const move = (/** @type {any} */ event) => {
    if (!dragged.current) return;
    const box = event.currentTarget.getBoundingClientRect();
    const share = ((event.clientX - box.left) * (width / box.width) - ROOM.left) / inner.w;
    dragged.current.set(clamped(low + share * (high - low)));
  };
  const key = (/** @type {Line} */ line, /** @type {KeyboardEvent} */ event) => {
    const step = event.shiftKey ? COARSE : FINE;
    const moves = {
      ArrowLeft: line.value - step,
      ArrowDown: line.value - step,
      ArrowRight: line.value + step,
      ArrowUp: line.value + step,
      PageDown: line.value - COARSE,
      PageUp: line.value + COARSE,
      Home: low,
      End: high,
    };
    const to = moves[/** @type {keyof typeof moves} */ (event.key)];
    if (to === undefined) return;
    event.preventDefault();
    line.set(clamped(to));
  };
  const bar = (/** @type {number} */ i) => {
    const left = x(low + i * bin) + 0.5;
    const wide = Math.max(1, inner.w / BINS - 1);
    return html`
      <rect class="column ok" x=${left} width=${wide} y=${y(counts.ok[i])} height=${y(0) - y(counts.ok[i])} />
      <rect class="column ng" x=${left} width=${wide} y=${y(counts.ok[i] + counts.ng[i])}
        height=${y(counts.ok[i]) - y(counts.ok[i] + counts.ng[i])} />
    `;
  };
  return html`
    <div class="histogram" ref=${element}>
      <svg viewBox=${`0 0 ${width} ${HEIGHT}`} width=${width} height=${HEIGHT} role="group" aria-label=${label}
        onPointerMove=${move} onPointerUp=${() => (dragged.current = null)} onPointerCancel=${() => (dragged.current = null)}>
        <defs>
          <pattern id="hatched" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
            <rect width="5" height="5" class="hatched-ground" /><line x1="0" y1="0" x2="0" y2="5" class="hatched-line" />
          </pattern>
        </defs>
        ${[0.5, 1].map((share) => {
          const count = Math.round(most * share);
          return html`
            <line class="rule" x1=${ROOM.left} x2=${width - ROOM.right} y1=${y(count)} y2=${y(count)} />
            <text class="tick" x=${ROOM.left - 6} y=${y(count) + 4} text-anchor="end">${count}</text>
          `;
        })}
        ${Array.from({ length: BINS }, (_, i) => bar(i))}
        ${images.map(
          (image) => html`<line class=${`rug ${image.label}`} key=${image.id} x1=${x(image.level)} x2=${x(image.level)} y1=${y(0) + 3} y2=${y(0) + 3 + RUG} />`,
        )}
        <line class="axis" x1=${ROOM.left} x2=${width - ROOM.right} y1=${y(0)} y2=${y(0)} />
        ${ticksOf(low, high).map(
          (value) => html`<text class="tick" x=${x(value)} y=${y(0) + 26} text-anchor="middle">${+value.toFixed(4)}</text>`,
        )}
        <text class="tick" x=${ROOM.left + inner.w / 2} y=${HEIGHT - 6} text-anchor="middle">${t("peak_axis")}</text>
        ${lines.map(
          (line) => html`
            <g class=${`line ${line.name}`} key=${line.name} tabindex="0" role="slider" aria-label=${line.text}
              aria-orientation="horizontal" aria-valuemin=${low} aria-valuemax=${high} aria-valuenow=${line.value}
              aria-valuetext=${level(line.value)} onKeyDown=${(/** @type {any} */ event) => key(line, event)}
              onPointerDown=${(/** @type {any} */ event) => {
                event.currentTarget.ownerSVGElement.setPointerCapture(event.pointerId);
                event.currentTarget.focus();
                dragged.current = line;
              }}>
              <rect class="grip" x=${x(clamped(line.value)) - 14} y="0" width="28" height=${HEIGHT - ROOM.bottom} />
              <line x1=${x(clamped(line.value))} x2=${x(clamped(line.value))} y1="20" y2=${y(0)} />
              <path d=${`M ${x(clamped(line.value)) - 9} 6 h 18 v 9 l -9 8 l -9 -8 z`} />
            </g>
          `,
        )}
      </svg>
    </div>
  `;
}
