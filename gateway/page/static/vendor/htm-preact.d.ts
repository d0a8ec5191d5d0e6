// What the page uses of htm-preact.js: htm 3.1.1 with Preact, `preact/standalone.module.js` of the npm package htm.
type Ref<T> = { current: T };
type Change<S> = S | ((before: S) => S);
export function html(strings: TemplateStringsArray, ...values: any[]): any;
export function render(tree: any, parent: Element): void;
export function useState<S>(initial: S | (() => S)): [S, (change: Change<S>) => void];
export function useEffect(effect: () => void | (() => void), inputs?: readonly unknown[]): void;
export function useLayoutEffect(effect: () => void | (() => void), inputs?: readonly unknown[]): void;
export function useRef<T>(initial: T): Ref<T>;
export function useMemo<T>(make: () => T, inputs: readonly unknown[]): T;
export function useCallback<F extends Function>(callback: F, inputs: readonly unknown[]): F;
