/** A grid of any number of pictures, of which only those in sight are in the document. */

import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/htm-preact.js";

const WIDTH = 148;
const HEIGHT = 178;
const SPARE = 2;

/**
 * @template T
 * @param {{items: T[], label: string, idOf: (item: T) => string, draw: (item: T) => any, selected: Set<string>,
 *   onSelect: (ids: Set<string>) => void, onKey: (event: KeyboardEvent, item: T | undefined) => boolean,
 *   onOpen: (item: T) => void}} props
 * `onKey` returns whether it used the key.
 */
export function Grid({ items, label, idOf, draw, selected, onSelect, onKey, onOpen }) {
  const element = useRef(/** @type {HTMLElement | null} */ (null));
  const [room, setRoom] = useState({ width: 800, height: 600 });
  const [scroll, setScroll] = useState(0);
  const [focus, setFocus] = useState(0);
  const anchor = useRef(0);

  useEffect(() => {
    const own = /** @type {HTMLElement} */ (element.current);
    const watch = new ResizeObserver(() => setRoom({ width: own.clientWidth, height: own.clientHeight }));
    watch.observe(own);
    return () => watch.disconnect();
  }, []);
  const columns = Math.max(1, Math.floor(room.width / WIDTH));
  const rows = Math.ceil(items.length / columns);
  const at = Math.min(focus, Math.max(0, items.length - 1));
  const first = Math.max(0, Math.floor(scroll / HEIGHT) - SPARE);
  const last = Math.min(rows, Math.ceil((scroll + room.height) / HEIGHT) + SPARE);
  const shown = items.slice(first * columns, last * columns);

  useLayoutEffect(() => {
    const own = /** @type {HTMLElement} */ (element.current);
    const top = Math.floor(at / columns) * HEIGHT;
    if (top < own.scrollTop) own.scrollTop = top;
    else if (top + HEIGHT > own.scrollTop + own.clientHeight) own.scrollTop = top + HEIGHT - own.clientHeight;
  }, [at, columns]);

  /** Select one, or all up to it, or one more. */
  const select = (/** @type {number} */ index, /** @type {any} */ { shiftKey = false, ctrlKey = false, metaKey = false }) => {
    const id = idOf(items[index]);
    if (shiftKey) {
      const [from, to] = [Math.min(anchor.current, index), Math.max(anchor.current, index)];
      onSelect(new Set(items.slice(from, to + 1).map(idOf)));
    } else {
      anchor.current = index;
      if (ctrlKey || metaKey) {
        const more = new Set(selected);
        if (!more.delete(id)) more.add(id);
        onSelect(more);
      } else onSelect(new Set([id]));
    }
    setFocus(index);
  };
  const key = (/** @type {KeyboardEvent} */ event) => {
    const page = columns * Math.max(1, Math.floor(room.height / HEIGHT));
    const moves = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      ArrowUp: at - columns,
      ArrowDown: at + columns,
      PageUp: Math.max(0, at - page),
      PageDown: Math.min(items.length - 1, at + page),
      Home: 0,
      End: items.length - 1,
    };
    const to = moves[/** @type {keyof typeof moves} */ (event.key)];
    if (to !== undefined) {
      if (to >= 0 && to < items.length) select(to, { shiftKey: event.shiftKey });
    } else if (event.key === " " && items.length) select(at, { ctrlKey: true });
    else if (event.key === "Enter" && items.length) onOpen(items[at]);
    else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey)) onSelect(new Set(items.map(idOf)));
    else if (event.key === "Escape") onSelect(new Set());
    else if (!onKey(event, items[at])) return;
    event.preventDefault();
  };
  const active = items.length ? `item-${idOf(items[at])}` : undefined;
  return html`
    <div class="grid" ref=${element} tabindex="0" role="listbox" aria-label=${label} aria-multiselectable="true"
      aria-activedescendant=${active} onKeyDown=${key}
      onScroll=${(/** @type {any} */ event) => setScroll(event.currentTarget.scrollTop)}>
      <div class="grid-all" role="presentation" style=${{ height: `${rows * HEIGHT}px` }}>
        ${shown.map((item, i) => {
          const index = first * columns + i;
          const id = idOf(item);
          const place = {
            transform: `translate(${(index % columns) * WIDTH}px, ${Math.floor(index / columns) * HEIGHT}px)`,
          };
          const marks = `item ${selected.has(id) ? "selected" : ""} ${index === at ? "at" : ""}`;
          return html`
            <div class=${marks} id=${`item-${id}`} key=${id} style=${place} role="option"
              aria-selected=${selected.has(id)} aria-setsize=${items.length} aria-posinset=${index + 1}
              onClick=${(/** @type {MouseEvent} */ event) => select(index, event)} onDblClick=${() => onOpen(item)}>
              ${draw(item)}
            </div>
          `;
        })}
      </div>
    </div>
  `;
}
