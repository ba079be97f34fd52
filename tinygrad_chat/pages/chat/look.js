/** The look inside: how likely the model found each token, what else it might have said, and what it attended to. */

import * as api from "./api.js";
import { byId, element, write, written } from "./dom.js";

const MIN_BAR = 0.005;
const PLACES = ["first choice", "second choice", "third choice"];
let asked = null;   // what was looked at last, to ask for another token's attention
let looked = null;  // what the server said of it
let chosen = null;  // the index of the token whose attention is shown
let turn = 0;       // so that an answer that is late does not replace a newer one

/** Look into a conversation, {messages}, or into a text or tokens, {prompt}. */
export async function look(body, speed) {
  asked = body;
  chosen = null;
  showSpeed(speed);
  if (!await ask(null)) return;
  byId("look-content").hidden = false;
  byId("tokens").replaceChildren(...looked.tokens.map(token));
  fill(byId("layer"), "mean of all", looked.attention.length);
  fill(byId("head"), "mean of all", looked.attention[0]?.length ?? 0);
  const last = byId("tokens").lastElementChild;
  if (last) last.tabIndex = 0;
  byId("tokens").scrollTop = byId("tokens").scrollHeight;
  colour();
  describe(looked.tokens.length - 1);
}

/** Show nothing: there is nothing to look at. */
export function clear() {
  asked = null;
  turn += 1;
  note("Ask something: each token of the answer appears here, with the probability that the model gave it.");
}

async function ask(index) {
  const mine = turn += 1;
  if (index === null) note("Looking …");
  try {
    const found = await api.look(index === null ? asked : { ...asked, index });
    if (mine !== turn) return false;
    looked = found;
    byId("look-note").hidden = true;
    return true;
  } catch (problem) {
    if (mine === turn) note(problem.message);
    return false;
  }
}

function note(text) {
  byId("look-content").hidden = true;
  byId("look-note").hidden = false;
  write("look-note", text);
}

function showSpeed(speed) {
  byId("speed").replaceChildren(...Object.entries(speed ?? {}).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

const probability = ({ logprob }) => logprob === null ? null : Math.exp(logprob);
const percent = (share) => share === null ? "given" : share < 0.001 ? "< 0.1 %" : `${written(100 * share, share < 0.1 ? 1 : 0)} %`;
const spelled = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣") || "∅";

function token(each, index) {
  const shown = element("span", { className: "token", tabIndex: -1, role: "button", "aria-pressed": "false",
    "aria-label": `${each.text}, ${percent(probability(each))}` }, each.text || "∅");
  shown.classList.toggle("special", /^<\|.*\|>$/.test(each.text));
  shown.addEventListener("pointerenter", () => describe(index));
  shown.addEventListener("focus", () => describe(index));
  shown.addEventListener("click", () => choose(index));
  return shown;
}

/** Probabilities as colours or, where a token is chosen, its attention. */
function colour() {
  const weights = chosen === null ? null : attention();
  const most = weights && Math.max(...weights, 1e-9);
  if (weights) tellAttention(weights);
  [...byId("tokens").children].forEach((shown, index) => {
    const share = probability(looked.tokens[index]);
    const strength = weights ? Math.sqrt((weights[index] ?? 0) / most) : share === null ? 0 : 1 - share;
    shown.style.setProperty("--strength", `${Math.round(100 * strength)}%`);
    shown.ariaPressed = String(index === chosen);
    shown.classList.toggle("after", chosen !== null && index > chosen);
  });
  byId("tokens").classList.toggle("attending", chosen !== null);
  byId("legend").replaceChildren(...(weights ? ["ignored", "attended to"] : ["expected", "a surprise"]).map((end) => element("span", {}, end)));
  byId("legend").classList.toggle("attending", chosen !== null);
  byId("attention").hidden = chosen === null;
}

/** The chosen token's weights: of one layer and head, or the mean of several. */
function attention() {
  const pick = (list, name) => byId(name).value === "" ? list : [list[Number(byId(name).value)]];
  const rows = pick(looked.attention, "layer").flatMap((heads) => pick(heads, "head"));
  return rows[0].map((_, position) => rows.reduce((sum, row) => sum + row[position], 0) / rows.length);
}

async function choose(index) {
  if (!looked.attention.length) return;  // a model that has none
  if (index === chosen) chosen = null;
  else if (await ask(index)) chosen = index;
  else return;
  colour();
}

function tellAttention(weights) {
  const most = weights.map((weight, position) => [weight, position]).sort(([a], [b]) => b - a).slice(0, 3);
  const named = most.map(([weight, position]) => `${spelled(looked.tokens[position].text)} (${percent(weight)})`);
  write("attention-note", `${spelled(looked.tokens[chosen].text)} attends most to ${named.join(", ")}.`);
}

function describe(index) {
  const each = looked.tokens[index], own = probability(each);
  const place = each.alternatives.findIndex(({ text }) => text === each.text);
  const alternatives = place === -1 && own !== null ? [...each.alternatives, each] : each.alternatives;
  const rank = own === null ? "given" : PLACES[place] ?? (place === -1 ? "further down" : `${place + 1}th choice`);
  byId("detail").replaceChildren(
    element("h3", {}, element("code", {}, spelled(each.text)), element("span", {}, rank)),
    element("ol", { className: "alternatives" }, ...alternatives.map((alternative) => bar(alternative, alternative.text === each.text))));
}

function bar(alternative, isChosen) {
  const share = probability(alternative), shown = element("span", { className: "bar" });
  shown.style.setProperty("--share", `${100 * Math.max(share, MIN_BAR)}%`);
  return element("li", isChosen ? { className: "said", "aria-current": "true" } : {},
    element("code", {}, spelled(alternative.text)), shown, element("span", { className: "share" }, percent(share)));
}

function fill(select, all, count) {
  select.replaceChildren(element("option", { value: "" }, all),
    ...Array.from({ length: count }, (_, index) => element("option", { value: String(index) }, String(index + 1))));
}

const WAYS = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity };

byId("tokens").addEventListener("keydown", (event) => {
  const all = [...byId("tokens").children], at = all.indexOf(document.activeElement);
  if (at === -1) return;
  if (event.key === "Enter" || event.key === " ") choose(at);
  else if (event.key in WAYS) {
    const next = all[Math.max(0, Math.min(all.length - 1, at + WAYS[event.key]))];
    all[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  } else return;
  event.preventDefault();
});
for (const select of ["layer", "head"]) byId(select).addEventListener("change", colour);
