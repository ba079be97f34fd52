/**
 * Chats, kept in this browser: an entry of localStorage each, so that two tabs do not overwrite each other's.
 *
 * A chat is {id, changed, messages}, and messages are as in the JSON lines that `tgc chat` saves and `tgc train` reads:
 * {role, content}, where content is a text or a list of parts {type, text}.
 */

export const MAX_CHATS = 100;
const MAX_BYTES = 5e6;
const PREFIX = "tgc.chat.";
const ROLES = ["system", "user", "assistant"];
const KINDS = ["text", "python", "python_output"];

export const newChat = (messages = []) => {
  const random = crypto.getRandomValues(new Uint32Array(2)).join("");
  return { id: `${Date.now()}-${random}`, changed: Date.now(), messages };
};

export const partsOf = ({ content }) => typeof content === "string" ? [{ type: "text", text: content }] : content;
export const textOf = (message) => partsOf(message).map((part) => part.type === "text" ? part.text : "").join("");

/** Parts as a message's content: a text where they are nothing else. */
export const contentOf = (parts) =>
  parts.every((part) => part.type === "text") ? parts.map((part) => part.text).join("") : parts;

export const titleOf = ({ messages }) => {
  const first = messages.find((message) => message.role === "user");
  return first ? textOf(first).trim().replace(/\s+/g, " ").slice(0, 60) : "New chat";
};

/** The chats, the newest first; what is not one of ours is left out. */
export function allChats() {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX))
      .map((key) => parsed(localStorage.getItem(key))).filter((chat) => chat && isConversation(chat))
      .sort((a, b) => b.changed - a.changed);
  } catch {
    return [];  // a browser that keeps nothing
  }
}

/** Keep a chat. Throws an Error that says what to do where there is no room. */
export function saveChat(chat) {
  const known = allChats();
  if (known.length >= MAX_CHATS && !known.some(({ id }) => id === chat.id)) {
    throw new Error(`This chat was not saved: there are ${MAX_CHATS} already. Delete some, or export them first.`);
  }
  try {
    localStorage.setItem(PREFIX + chat.id, JSON.stringify(chat));
  } catch {
    throw new Error("This chat was not saved: the browser's storage is full or disabled. Export or delete some chats.");
  }
}

export const removeChat = ({ id }) => localStorage.removeItem(PREFIX + id);

/** Chats as JSON lines. */
export const toLines = (chats) => chats.map(({ messages }) => `${JSON.stringify({ messages })}\n`).join("");

/** The chats of a file of JSON lines. Throws an Error that names the line which is none. */
export function fromLines(text) {
  if (text.length > MAX_BYTES) throw new Error(`Expected a file of at most ${MAX_BYTES / 1e6} MB.`);
  const lines = text.split("\n").map((line, index) => [line, index + 1]).filter(([line]) => line.trim());
  if (!lines.length) throw new Error("The file is empty.");
  return lines.map(([line, number]) => {
    const row = parsed(line);
    if (!row || !isConversation(row)) throw new Error(`Line ${number}: expected {"messages": [...]}.`);
    return newChat(row.messages.map(({ role, content }) => ({ role, content })));
  });
}

function parsed(text) {
  try { return JSON.parse(text); } catch { return null; }
}

const isContent = (content) => typeof content === "string" || Array.isArray(content)
  && content.every((part) => part && KINDS.includes(part.type) && typeof part.text === "string");

const isConversation = ({ messages }) => Array.isArray(messages)
  && messages.every((message) => message && ROLES.includes(message.role) && isContent(message.content));
