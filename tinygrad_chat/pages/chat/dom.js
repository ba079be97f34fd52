/** Elements are made here: a text becomes a text node, so that nothing anyone wrote can become markup. */

// Control characters but for tab and newline, what turns the direction of writing, what is no text: as printable() in
// formatting.py has it.
const UNSEEN =
  /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ufeff\ufffe\uffff\u{d800}-\u{dfff}]/gu;

/** A text in which what cannot be seen, or would disturb its surroundings, is a visible escape. */
export const visible = (text) => text.replace(UNSEEN, (character) => {
  const code = character.charCodeAt(0);
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
});

/** Make an element with these properties or attributes, and children that are texts or nodes. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, visible(value));
  }
  made.append(...children.map((child) => typeof child === "string" ? visible(child) : child));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Let an element hold this text alone. */
export const write = (id, text) => byId(id).replaceChildren(visible(text));

export const button = (text, onclick, className = "quiet") => element("button", { type: "button", className, onclick }, text);

/** Write a number for people: whole ones with a separator, others with this many digits behind the point. */
export const written = (number, digits = 0) =>
  number.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
