/** The page put together: which chat is open, and the one answer at a time that is being written to it. */

import * as api from "./api.js";
import * as chats from "./chats.js";
import { button, byId, element, visible, write, written } from "./dom.js";
import { askForKey } from "./key.js";
import * as looking from "./look.js";
import * as panes from "./panes.js";
import * as settings from "./settings.js";
import { allChats, contentOf, newChat, saveChat, textOf } from "./store.js";
import { toast } from "./toast.js";
import * as transcript from "./transcript.js";

const OPENINGS = ["Who are you?", "What is 347 * 28?", "Spell giraffe.", "What does str.split do?"];
const question = byId("question");
let chat = allChats()[0] ?? newChat();
let model = {};      // as the server describes it
let running = null;  // the AbortController of the answer that is being written
let attempts = 0;    // at the answer that is wanted: each draws other numbers
const speeds = new WeakMap();  // of messages: how fast they came
const tokensOf = new WeakMap();  // of messages: what was read and written, as a text need not tell

const completes = () => document.querySelector("[name=mode]:checked").value === "completion";
const isOver = () => running === null;

// --- what one can do

const actions = {
  edit(index, text) { from(index); ask(text); },
  retry(index) { from(index); attempts += 1; answer(); },
  look(index) { panes.open("look"); lookAt(index); },
};

function ask(text) {
  stop();
  if (chat.messages.at(-1)?.role === "user") chat.messages.pop();  // what was not answered is not said
  chat.messages.push({ role: "user", content: text });
  attempts = 0;
  answer();
}

function from(index) {
  stop();
  chat.messages.splice(index);
}

function stop() {
  running?.abort();
  running = null;
  showBusy();
}

function open(other) {
  stop();
  const system = byId("system").value.trim();
  chat = other ?? newChat(system ? [{ role: "system", content: system }] : []);
  attempts = 0;
  panes.open("chats", false);
  show();
  question.focus();
}

function tell() {
  const text = byId("system").value.trim();
  if (chat.messages[0]?.role === "system") chat.messages.shift();
  if (text) chat.messages.unshift({ role: "system", content: text });
  if (chat.messages.length > 1) keep(chat);
}

// --- an answer

/** Where the server is asked, and what. A text that it goes on from is one message, and knows of no others. */
const asked = () => completes() ? ["v1/completions", { prompt: textOf(chat.messages.at(-1)) }]
  : ["v1/chat/completions", { messages: chat.messages }];

async function answer() {
  const mine = running = new AbortController(), own = chat;
  const options = settings.options(attempts), message = { role: "assistant", content: [] }, tokens = [];
  const begun = performance.now();
  let first = null, count = 0, note = null;
  keep(own);
  show();
  showBusy();
  const writing = transcript.begin();
  try {
    await meeting;  // who is quick has asked before it is known which model there is
    const [path, body] = asked();
    for await (const step of api.answer(path, { model: model.id, ...body, ...options }, mine.signal)) {
      mine.signal.throwIfAborted();
      if (step.used) { count = step.used.completion_tokens; showRoom(step.used.total_tokens); }
      if (step.ended === "length") note = "The answer reached the maximum length, or the end of the model's context.";
      if (step.tokens) tokens.push(...step.tokens);
      if (!step.text) continue;
      first ??= performance.now();
      count += 1;
      add(message, step);
      if (!own.messages.includes(message)) own.messages.push(message);
      writing.update(message.content);
    }
    if (first === null) throw new api.Problem("silent", "The model said nothing.");
  } catch (problem) {
    if (own === chat && !chat.messages.includes(message)) writing.shown.remove();
    if (problem.name !== "AbortError") { if (own === chat) complain(problem); } else note = "Stopped.";
  }
  if (running === mine) stop();
  if (!own.messages.includes(message)) return;
  tokensOf.set(message, tokens);
  speeds.set(message, { count, first: first - begun, rest: performance.now() - first, seed: options.seed });
  writing.show(message.content);
  message.content = contentOf(message.content);
  writing.end(textOf(message), own.messages.indexOf(message), actions, note);
  keep(own);
  if (own === chat && !byId("look").hidden) lookAt(chat.messages.indexOf(message));
}

function add({ content }, { type, text }) {
  if (content.at(-1)?.type === type) content.at(-1).text += text;
  else content.push({ type, text });
}

function complain(problem) {
  const again = ["Try again", answer];
  const remedies = {
    key: [["Enter the key", () => withKey(answer)]],
    full: [["Ask in a new chat", () => { const text = textOf(chat.messages.at(-1)); open(); ask(text); }]],
    plain: [["Continue this text", () => { byId("mode-completion").click(); answer(); }]],
  };
  const kind = model.chats === false && !completes() ? "plain" : problem.kind;
  transcript.complain(problem.message, remedies[kind] ?? [again]);
  if (problem.kind === "key") withKey(answer);
}

async function withKey(act) {
  if (!await askForKey()) return;
  await meet();
  act();
}

function lookAt(index) {
  const { count, first, rest, seed } = speeds.get(chat.messages[index]) ?? {};
  looking.look(shownOf(index), count && {
    tokens: written(count),
    "per second": count > 1 ? written(1000 * (count - 1) / rest) : "–",
    "to the first token": `${written(first / 1000, 2)} s`,
    seed: String(seed),
  });
}

/** What to look at: the very tokens or, of an answer of an earlier visit, its text. */
function shownOf(index) {
  const tokens = tokensOf.get(chat.messages[index]), messages = chat.messages.slice(0, index + 1);
  if (tokens) return { prompt: tokens.slice(0, model.max_model_len) };
  return completes() ? { prompt: messages.slice(-2).map(textOf).join("") } : { messages };
}

// --- what is shown

function show() {
  byId("system").value = chat.messages[0]?.role === "system" ? textOf(chat.messages[0]) : "";
  transcript.show(chat.messages, actions, welcome());
  if (isOver() && chat.messages.at(-1)?.role === "user") transcript.complain("This has no answer yet.", [["Ask again", answer]]);
  if (isOver() && !byId("look").hidden) lookAtLast();
  write("room", "");
  chats.show(chat);
}

function lookAtLast() {
  const index = chat.messages.findLastIndex(({ role }) => role === "assistant");
  if (index === -1) looking.clear(); else lookAt(index);
}

function welcome() {
  const [title, line, openings] = completes() ? ["Begin a text", "The model continues what you write.", []]
    : ["Ask the model", "It answers with what it learned, and shows how it came to each word.", OPENINGS];
  return element("div", { className: "welcome" }, element("h2", {}, title), element("p", {}, line),
    element("div", { className: "openings" }, ...openings.map((text) => button(text, () => ask(text), ""))));
}

function showBusy() {
  byId("send").textContent = isOver() ? "Send" : "Stop";
  document.body.classList.toggle("busy", !isOver());
}

function showRoom(used) {
  write("room", model.max_model_len ? `${written(used)} of ${written(model.max_model_len)} tokens` : "");
}

function keep(kept) {
  kept.changed = Date.now();
  try { saveChat(kept); } catch (error) { toast(error.message); }
  chats.show(chat);
}

/** Learn what model there is. */
async function meet() {
  try {
    [model] = await api.models();
    document.title = visible(model.id);
    write("model", model.id);
    if (model.max_model_len) byId("max_tokens").max = model.max_model_len;
    settings.remember();
    if (model.chats === false && !completes()) byId("mode-completion").click();
  } catch (problem) {
    if (problem.kind === "key") withKey(() => {});
    else toast(problem.message, ["Try again", meet]);
  }
}

// --- keys and buttons

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (!isOver()) { stop(); return; }
  if (!text) return;
  question.value = "";
  ask(text);
});
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (isOver()) byId("composer").requestSubmit();  // who types ahead stops nothing
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || byId("key-dialog").open) return;
  if (isOver()) panes.closeAny(); else stop();
});
byId("system").addEventListener("change", tell);
for (const choice of document.getElementsByName("mode")) choice.addEventListener("change", () => isOver() && show());
addEventListener("storage", () => chats.show(chat));  // another tab's

chats.connect(open);
panes.connect((name) => name === "look" && lookAtLast());
settings.remember();
show();
question.focus();
const meeting = meet();
