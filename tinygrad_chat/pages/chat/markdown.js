/**
 * Light Markdown as nodes: paragraphs, headings, lists, fenced code; code, bold and italic within a line. Nothing is a
 * link, nothing is loaded. A calculator's calls stand where they were made.
 */

import { element } from "./dom.js";

const CALL = "\ufffc";  // stands for a call while the text around it is taken apart
const FENCE = /^\s*```/, HEADING = /^#{1,6}\s+/, BULLET = /^\s*[-*]\s+/, NUMBER = /^\s*(\d{1,9})[.)]\s+/;
const MARKS = [["`", "code"], ["**", "strong"], ["*", "em"]];

/** The nodes of an answer's parts: {type: "text" | "python" | "python_output", text}. */
export function markdown(parts) {
  const calls = [];
  let text = "";
  for (const part of parts) {
    if (part.type === "text") text += part.text.replaceAll(CALL, "\ufffd");
    else if (part.type === "python") { calls.push([part.text, null]); text += CALL; }
    else if (calls.length) calls.at(-1)[1] = part.text;
  }
  const next = calls.map(calculation).values();
  const place = (piece) => piece.split(CALL).flatMap((each, index) => index ? [next.next().value, each] : [each]);
  return blocks(text.split("\n"), place);
}

const calculation = ([question, answer]) => element("span", { className: "calculation", title: "asked the calculator" },
  element("span", { className: "unseen" }, "calculator: "), question, ...answer === null ? [] : [` = ${answer}`]);

/** `place` puts the calls into a text: each block hands it its text, in order. */
function blocks(lines, place) {
  const nodes = [];
  for (let at = 0; at < lines.length;) {
    const begin = at;
    const skip = (belongs) => { while (at < lines.length && belongs(lines[at])) at += 1; };
    if (FENCE.test(lines[at])) {
      at += 1;
      skip((line) => !FENCE.test(line));
      nodes.push(element("pre", { tabIndex: 0 }, element("code", {}, ...place(lines.slice(begin + 1, at).join("\n")))));
      at += 1;
    } else if (HEADING.test(lines[at])) {
      at += 1;
      nodes.push(element("p", { className: "heading" }, ...inline(lines[begin].replace(HEADING, ""), place)));
    } else if (BULLET.test(lines[at]) || NUMBER.test(lines[at])) {
      const mark = BULLET.test(lines[at]) ? BULLET : NUMBER;
      skip((line) => mark.test(line));
      const items = lines.slice(begin, at).map((line) => element("li", {}, ...inline(line.replace(mark, ""), place)));
      const list = mark === BULLET ? ["ul", {}] : ["ol", { start: Number(NUMBER.exec(lines[begin])[1]) }];
      nodes.push(element(...list, ...items));
    } else if (lines[at].trim()) {
      skip((line) => line.trim() && ![FENCE, HEADING, BULLET, NUMBER].some((mark) => mark.test(line)));
      nodes.push(element("p", {}, ...inline(lines.slice(begin, at).join("\n"), place)));
    } else {
      at += 1;
    }
  }
  return nodes;
}

/** Texts and elements of a text in which marks may be: in one pass, as each kind of mark that finds no end is given up. */
function inline(text, place) {
  const nodes = [], givenUp = new Set();
  let plain = 0;
  for (let at = 0; at < text.length; at += 1) {
    const [mark, tag] = MARKS.find(([each]) => text.startsWith(each, at) && !givenUp.has(each)) ?? [];
    if (!mark) continue;
    const begin = at + mark.length, end = text.indexOf(mark, begin);
    if (end === -1) { givenUp.add(mark); continue; }
    const inner = text.slice(begin, end);
    if (!inner.trim() || tag !== "code" && !stands(text, at, begin, end, end + mark.length)) continue;
    nodes.push(...place(text.slice(plain, at)), element(tag, {}, ...tag === "code" ? place(inner) : inline(inner, place)));
    plain = end + mark.length;
    at = plain - 1;
  }
  return [...nodes, ...place(text.slice(plain))];
}

/** Whether marks hug what is between them and no word from outside: 2*3*4 is no italics. */
const stands = (text, at, begin, end, after) => /\S/.test(text[begin]) && /\S/.test(text[end - 1])
  && !/\w/.test(text[at - 1] ?? " ") && !/\w/.test(text[after] ?? " ");
