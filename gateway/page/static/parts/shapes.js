/** Shapes of the part, in pixels of the image as sent: how to draw them, and where to take hold of them. */

import { html } from "../vendor/htm-preact.js";

/**
 * @typedef {{kind: string, cx: number, cy: number, r?: number, r_inner?: number, w?: number, h?: number,
 *   angle?: number}} Shape
 * @typedef {{name: string, x: number, y: number}} Handle
 */

export const KINDS = ["rect", "circle", "annulus"];
/** @type {Record<string, string[]>} */
export const KEYS = {
  rect: ["cx", "cy", "w", "h", "angle"],
  circle: ["cx", "cy", "r"],
  annulus: ["cx", "cy", "r", "r_inner"],
};

/** @param {string} kind @param {number} width @param {number} height @returns {Shape} */
export function firstShape(kind, width, height) {
  const [cx, cy] = [width / 2, height / 2];
  const r = Math.round(0.4 * Math.min(width, height));
  if (kind === "rect") return { kind, cx, cy, w: Math.round(0.8 * width), h: Math.round(0.8 * height), angle: 0 };
  return kind === "circle" ? { kind, cx, cy, r } : { kind, cx, cy, r, r_inner: Math.round(r / 2) };
}

/** @param {Shape} shape @param {number} dx @param {number} dy */
function turned(shape, dx, dy) {
  const angle = ((shape.angle ?? 0) * Math.PI) / 180;
  return { x: shape.cx + dx * Math.cos(angle) - dy * Math.sin(angle), y: shape.cy + dx * Math.sin(angle) + dy * Math.cos(angle) };
}

/** @param {Shape} shape @param {number} reach distance of the handle that turns @returns {Handle[]} */
export function handlesOf(shape, reach) {
  const { cx, cy, r = 0, r_inner = 0, w = 0, h = 0 } = shape;
  const centre = { name: "centre", x: cx, y: cy };
  if (shape.kind === "rect") {
    return [
      centre,
      { name: "corner", ...turned(shape, w / 2, h / 2) },
      { name: "angle", ...turned(shape, 0, -h / 2 - reach) },
    ];
  }
  const outer = { name: "r", x: cx + r, y: cy };
  return shape.kind === "circle" ? [centre, outer] : [centre, outer, { name: "r_inner", x: cx - r_inner, y: cy }];
}

/** A shape after one of its handles was moved to (x, y). @param {Shape} shape @param {string} name @param {number} x @param {number} y @returns {Shape} */
export function moved(shape, name, x, y) {
  const round = (/** @type {number} */ value) => Math.round(value * 10) / 10;
  if (name === "centre") return { ...shape, cx: round(x), cy: round(y) };
  const [dx, dy] = [x - shape.cx, y - shape.cy];
  if (name === "angle") return { ...shape, angle: round(((Math.atan2(dy, dx) * 180) / Math.PI + 90 + 360) % 360) };
  if (name === "corner") {
    const back = turned({ ...shape, cx: 0, cy: 0, angle: -(shape.angle ?? 0) }, dx, dy);
    return { ...shape, w: Math.max(4, round(2 * Math.abs(back.x))), h: Math.max(4, round(2 * Math.abs(back.y))) };
  }
  const reach = Math.max(2, round(Math.hypot(dx, dy)));
  if (name === "r") return { ...shape, r: Math.max(reach, (shape.r_inner ?? 0) + 2) };
  return { ...shape, r_inner: Math.min(reach, (shape.r ?? 0) - 2) };
}

/** @param {{shape: Shape, size: number}} props `size` is that of a handle; 0 draws none */
export function DrawnShape({ shape, size }) {
  const { cx, cy, r, r_inner, w = 0, h = 0, angle = 0 } = shape;
  const outline =
    shape.kind === "rect"
      ? html`<rect class="shape" x=${cx - w / 2} y=${cy - h / 2} width=${w} height=${h} transform=${`rotate(${angle} ${cx} ${cy})`} />`
      : html`<circle class="shape" cx=${cx} cy=${cy} r=${r} />
          ${shape.kind === "annulus" && html`<circle class="shape" cx=${cx} cy=${cy} r=${r_inner} />`}`;
  return html`
    ${outline}
    ${size > 0 && handlesOf(shape, 3 * size).map((each) => html`<circle class="handle" cx=${each.x} cy=${each.y} r=${size} />`)}
  `;
}
