/** The list of the chats that this browser keeps: open, delete, export, import. */

import { button, byId, element } from "./dom.js";
import { allChats, fromLines, removeChat, saveChat, titleOf, toLines } from "./store.js";
import { toast } from "./toast.js";

let opens = null;  // what opens a chat, or a new one

export function connect(open) {
  opens = open;
  byId("new-chat").addEventListener("click", () => open());
  byId("export").addEventListener("click", save);
  byId("import").addEventListener("click", () => byId("import-file").click());
  byId("import-file").addEventListener("change", take);
}

/** List the chats; `current` is the one that is open. */
export function show(current) {
  byId("chat-list").replaceChildren(...allChats().map((chat) => {
    const title = titleOf(chat), isOpen = chat.id === current.id;
    return element("li", {},
      element("button", { type: "button", className: "title", dir: "auto", onclick: () => opens(chat), ...isOpen && { "aria-current": "true" } }, title),
      element("button", { type: "button", className: "quiet delete", "aria-label": `Delete ${title}`, onclick: () => remove(chat, isOpen, current) }, "×"));
  }));
}

function remove(chat, isOpen, current) {
  removeChat(chat);
  if (isOpen) opens();
  else show(current);
  byId("new-chat").focus();
  toast("Deleted.", ["Undo", () => { saveChat(chat); opens(chat); }]);
}

function save() {
  const lines = toLines(allChats());
  if (!lines) { toast("There is no chat to export."); return; }
  const address = URL.createObjectURL(new Blob([lines], { type: "application/jsonl" }));
  element("a", { href: address, download: "chats.jsonl" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);  // once the file is written
}

async function take() {
  const [file] = byId("import-file").files;
  byId("import-file").value = "";  // the same file may be chosen again
  if (!file) return;
  try {
    const chats = fromLines(await file.text());
    chats.forEach(saveChat);
    opens(chats[0]);
    toast(chats.length === 1 ? "Imported a chat." : `Imported ${chats.length} chats.`);
  } catch (error) {
    toast(`${file.name}: ${error.message}`);
  }
}
