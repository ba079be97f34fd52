/** Asks for the server's key. */

import * as api from "./api.js";
import { byId } from "./dom.js";

/** Resolve to whether a key was given; it is kept for this tab. */
export function askForKey() {
  const dialog = byId("key-dialog");
  if (dialog.open) return new Promise(() => {});  // it is being asked for already
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    const key = byId("key").value;
    byId("key").value = "";
    if (dialog.returnValue === "given") api.setKey(key);
    resolve(dialog.returnValue === "given");
  }, { once: true }));
}

byId("key-cancel").addEventListener("click", () => byId("key-dialog").close(""));
