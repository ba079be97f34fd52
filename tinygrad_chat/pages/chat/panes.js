/** The chats at the left, settings and the look inside at the right: open and closed, by buttons and by Esc. */

import { byId } from "./dom.js";

const RIGHT = ["look", "settings"];  // of which one is open at a time
const isOpen = (name) => name === "chats" ? byId(name).classList.contains("open") : !byId(name).hidden;
const opener = (name) => document.querySelector(`[data-opens="${name}"]`);

export function open(name, shown = true) {
  if (shown && RIGHT.includes(name)) RIGHT.filter((other) => other !== name).forEach((other) => open(other, false));
  if (name === "chats") byId(name).classList.toggle("open", shown);
  else byId(name).hidden = !shown;
  opener(name).ariaExpanded = String(shown);
  document.body.classList.toggle("beside", RIGHT.some(isOpen));
}

/** Close what lies over the conversation or beside it, and return to its button. Return whether there was anything. */
export function closeAny() {
  const name = ["chats", ...RIGHT].find(isOpen);
  if (name) close(name);
  return Boolean(name);
}

function close(name) {
  open(name, false);
  opener(name).focus();
}

/** Let the buttons work; `onopen(name)` hears of each that is opened. */
export function connect(onopen) {
  for (const each of document.querySelectorAll("[data-opens]")) {
    const name = each.dataset.opens;
    each.addEventListener("click", () => {
      open(name, !isOpen(name));
      if (isOpen(name)) { onopen(name); byId(name).querySelector("button, [tabindex='0']").focus(); }
    });
  }
  for (const each of document.querySelectorAll("[data-closes]")) each.addEventListener("click", () => close(each.dataset.closes));
}
