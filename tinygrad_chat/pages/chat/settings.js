/** What a person sets, remembered by this browser. */

import { byId } from "./dom.js";
import { setTheme, theme } from "./theme.js";

const KEY = "tgc.settings";
const DRAWN = 1_000_000;  // seeds that a person can note down
const SLIDERS = ["temperature", "top_p", "max_tokens"];

/** The options of an answer. A seed that is not set is another one each time; the `attempt` at an answer tells them apart. */
export function options(attempt = 0) {
  const set = Object.fromEntries(SLIDERS.map((name) => [name, Number(byId(name).value)]));
  const seed = byId("seed").value;
  const drawn = crypto.getRandomValues(new Uint32Array(1))[0] % DRAWN;
  return { ...set, seed: seed === "" ? drawn : Number(seed) + attempt };
}

/** Fill the fields with what was set before, and remember what is set from now on. */
export function remember() {
  let before = {};
  try { before = JSON.parse(localStorage.getItem(KEY)) ?? {}; } catch { /* the page's own, then */ }
  for (const name of [...SLIDERS, "seed"]) {
    const field = byId(name);
    const told = () => { if (field.type === "range") field.parentElement.querySelector("output").textContent = field.value; };
    if (typeof before[name] === "string") field.value = before[name];
    told();
    field.addEventListener("input", () => { told(); keep(); });
  }
  for (const choice of document.getElementsByName("theme")) {
    choice.checked = choice.value === theme();
    choice.addEventListener("change", () => setTheme(choice.value));
  }
}

function keep() {
  const set = Object.fromEntries([...SLIDERS, "seed"].map((name) => [name, byId(name).value]));
  try { localStorage.setItem(KEY, JSON.stringify(set)); } catch { /* until the page is closed */ }
}
