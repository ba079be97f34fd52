/** A line at the bottom for a moment: what was done, and perhaps a button that undoes it. */

import { button, byId, element } from "./dom.js";

const SECONDS = 10;
let timer = null;

export function toast(text, [name, act] = []) {
  clearTimeout(timer);
  const gone = () => byId("toast").replaceChildren();
  byId("toast").replaceChildren(element("span", {}, text),
    ...name ? [button(name, () => { gone(); act(); })] : [], button("Dismiss", gone));
  timer = setTimeout(gone, 1000 * SECONDS);
}
