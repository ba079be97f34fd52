/** The conversation as one reads it. It shows; what its buttons do is told to it. */

import { button, byId, element } from "./dom.js";
import { markdown } from "./markdown.js";
import { partsOf, textOf } from "./store.js";

const list = byId("conversation");

/** Show messages anew. `actions`: edit(index, text), retry(index), look(index). */
export function show(messages, actions, welcome) {
  list.replaceChildren(...messages.flatMap((message, index) =>
    message.role === "system" ? [] : [message.role === "user" ? question(message, index, actions)
      : answered(message, index, actions)]));
  if (!list.children.length) list.append(welcome);
  toTheEnd();
}

function question(message, index, actions) {
  const text = textOf(message);
  const shown = element("article", { className: "question", "aria-label": "You" },
    element("div", { className: "actions" }, button("Edit", () => edit(shown, text, (changed) => actions.edit(index, changed)))),
    element("div", { className: "said", dir: "auto" }, text));
  return shown;
}

function edit(shown, text, done) {
  const before = [...shown.children];
  const field = element("textarea", { value: text, dir: "auto", rows: Math.min(12, text.split("\n").length + 1), "aria-label": "Edit your message" });
  const cancel = () => { shown.replaceChildren(...before); shown.querySelector("button").focus(); };
  const send = () => field.value.trim() && done(field.value.trim());
  field.addEventListener("keydown", (event) => {
    if (event.isComposing || !["Enter", "Escape"].includes(event.key) || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "Enter") send(); else cancel();
  });
  shown.replaceChildren(field, element("div", { className: "actions editing" }, button("Cancel", cancel), button("Send", send, "")));
  field.focus();
}

function answered(message, index, actions) {
  const answer = new Answer();
  answer.show(partsOf(message));
  answer.end(textOf(message), index, actions);
  return answer.shown;
}

/** An answer that is being written. */
export class Answer {
  #body = element("div", { className: "said", dir: "auto" });
  #waiting = element("span", { className: "waiting", "aria-hidden": "true" });
  #parts = null;  // not on the screen yet

  constructor() {
    this.shown = element("article", { className: "answer", "aria-label": "The model", "aria-busy": "true" }, this.#body);
    this.#body.append(this.#waiting);
  }

  /** Show these parts with the next frame. */
  update(parts) {
    if (!this.#parts) requestAnimationFrame(() => this.#parts && this.show(this.#parts));
    this.#parts = parts;
  }

  show(parts) {
    const follow = isAtTheEnd();
    this.#parts = null;
    this.#body.replaceChildren(...markdown(parts));
    if (this.shown.ariaBusy === "true") (this.#body.lastElementChild ?? this.#body).append(this.#waiting);
    if (follow) toTheEnd();
  }

  /** It is whole: a screen reader reads it now. A `note` says how it ended. */
  end(text, index, actions, note = null) {
    const follow = isAtTheEnd();
    this.#waiting.remove();
    this.shown.ariaBusy = "false";
    const copy = button("Copy", () => navigator.clipboard?.writeText(text).then(() => { copy.textContent = "Copied"; }));
    this.shown.append(
      ...note ? [element("p", { className: "hint" }, note)] : [],
      element("div", { className: "actions" }, button("Retry", () => actions.retry(index)), copy,
        button("Look inside", () => actions.look(index))));
    if (follow) toTheEnd();
  }
}

/** Put an answer that is being written at the end. */
export function begin() {
  const answer = new Answer();
  list.append(answer.shown);
  toTheEnd();
  return answer;
}

/** Say at the end what went wrong, with buttons for what can be done: [text, what it does]. */
export function complain(text, remedies) {
  list.append(element("article", { className: "problem", role: "alert" }, element("p", {}, text),
    element("div", { className: "remedies" }, ...remedies.map(([name, act]) => button(name, act, "")))));
  toTheEnd();
}

const scroller = list.parentElement;
const isAtTheEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
const toTheEnd = () => { scroller.scrollTop = scroller.scrollHeight; };
