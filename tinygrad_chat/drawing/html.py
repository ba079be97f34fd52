"""The picture as a page, self-contained, that steps backward through the sweep as `backpropagate` does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tinygrad_chat.autograd import Node
from tinygrad_chat.drawing.graph import Record, describe, norm_text, summary
from tinygrad_chat.drawing.svg import DARK, LIGHT, MONOSPACED, svg_of
from tinygrad_chat.drawing.sweep import Step, replay


def draw_html(root: Node, names: Mapping[int, str] | None = None, *, title: str = "graph") -> str:
    """Return a page with the graph below `root` and a stepper through its backward sweep.

    `names` labels nodes by their `birth`. Raises UsageError for more nodes than anybody can look at, and for an array
    of several elements that no sweep began at.
    """
    steps = replay(root)
    complete = {step.number: summary(step.gradient) for step in steps}
    records = [
        dataclasses.replace(record, gradient=complete.get(record.number, "")) for record in describe(root, names)
    ]
    sums = [(flow.parent, summary(flow.total)) for step in steps for flow in step.flows]
    room = {number: 2 + max(len(text) for parent, text in sums if parent == number) for number, _ in sums}
    return _PAGE.format(
        title=escape(title),
        style=_page_style(),
        svg=svg_of(records, room),
        steps=json.dumps(stepper(records, steps)).replace("<", "\\u003c"),
        script=_SCRIPT,
    )


def stepper(records: Sequence[Record], steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Return what the page's script shows at each step, as text."""
    record_of = {record.number: record for record in records}
    return [
        {
            "node": step.number,
            "gradient": summary(step.gradient),
            "sentence": _sentence(step, record_of),
            "flows": [
                {
                    "parent": flow.parent,
                    "operand": flow.operand,
                    "gradient": norm_text(flow.gradient),
                    "total": summary(flow.total),
                }
                for flow in step.flows
            ],
        }
        for step in steps
    ]


def _sentence(step: Step, record_of: Mapping[int, Record]) -> str:
    name, d_out = record_of[step.number].name, norm_text(step.gradient)
    if not step.flows:
        return f"{name}: a {record_of[step.number].kind}, so here the sweep ends, with the gradient {d_out}"
    sent = ", ".join(f"{norm_text(flow.gradient)} to {record_of[flow.parent].name}" for flow in step.flows)
    return f"{name}: d_out = {d_out} → {sent}"


def _page_style() -> str:
    variables = ["; ".join(f"--{name.replace('_', '-')}: {color}" for name, color in p.items()) for p in (LIGHT, DARK)]
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {variables[1]} }} }}"
    return f":root {{ color-scheme: light dark; --font: {MONOSPACED}; {variables[0]} }}\n{dark}\n{_STYLE}"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<nav>
<button id="first" title="Home">Start</button>
<button id="back" title="left arrow">Back</button>
<button id="play" title="space bar">Play</button>
<button id="next" title="right arrow">Next</button>
<button id="last" title="End">End</button>
<span id="count"></span>
<button id="fit" title="f">Fit</button>
</nav>
<p id="sentence" aria-live="polite">→ and ← step through the backward sweep.</p>
</header>
<main>
{svg}
</main>
<script type="application/json" id="steps">{steps}</script>
<script>{script}</script>
</body>
</html>
"""

_STYLE = """* { box-sizing: border-box }
body { margin: 0; height: 100vh; display: flex; flex-direction: column; background: var(--paper); color: var(--text);
  font: 14px/1.5 system-ui, sans-serif }
header { padding: 14px 24px 10px; border-bottom: 1px solid var(--line); background: var(--box) }
h1 { margin: 0 0 10px; font: 600 16px/1.4 var(--font) }
nav { display: flex; align-items: center; gap: 6px }
button { min-width: 42px; height: 30px; padding: 0 10px; font: inherit; color: inherit; cursor: pointer;
  border: 1px solid var(--line); border-radius: 7px; background: var(--paper) }
button:hover { border-color: var(--muted) }
#play { min-width: 70px; border-color: var(--gradient); color: var(--gradient) }
#count { min-width: 120px; margin-left: 8px; color: var(--muted); font-variant-numeric: tabular-nums }
#sentence { margin: 10px 0 0; min-height: 3em; font: 13px/1.5 var(--font) }
main { flex: 1; min-height: 0; overflow: auto; display: flex }
main svg { flex: none; margin: auto }
main.fit svg { width: 100%; height: 100% }
.node rect, .edge path { transition: stroke 0.2s }
.tgc-graph g.node.now rect { stroke: var(--gradient); stroke-width: 3 }
.tgc-graph .edge.now path { stroke: var(--gradient); stroke-width: 2.2 }
.tgc-graph .edge.now .head { fill: var(--gradient); stroke: none }
.tgc-graph .edge.now text { font-weight: 700 }
.tgc-graph .edge.past text { opacity: 0.6 }
.tgc-graph .gradient.partial { opacity: 0.6; font-style: italic }
"""

_SCRIPT = """
"use strict";
const steps = JSON.parse(document.getElementById("steps").textContent);
const button = (name) => document.getElementById(name);
const node = (number) => document.querySelector(`.node[data-node="${number}"]`);
const edge = (parent, child, operand) => document.querySelector(
  `.edge[data-parent="${parent}"][data-child="${child}"][data-operand="${operand}"]`);
let done = 0;      // how many nodes had their turn
let timer = null;  // while it plays
let motion = "auto";

function showGradient(number, text, partial) {
  const line = node(number).querySelector(".gradient");
  line.textContent = partial ? "… " + text : text;
  line.classList.toggle("partial", partial);
}

function show(count) {
  done = Math.max(0, Math.min(steps.length, count));
  document.querySelectorAll(".gradient").forEach((line) => { line.textContent = ""; });
  document.querySelectorAll(".edge text").forEach((line) => { line.textContent = ""; });
  document.querySelectorAll(".now, .past").forEach((thing) => { thing.classList.remove("now", "past"); });
  steps.slice(0, done).forEach((step, position) => {
    const when = position === done - 1 ? "now" : "past";
    node(step.node).classList.add(when);
    showGradient(step.node, step.gradient, false);
    for (const flow of step.flows) {
      const way = edge(flow.parent, step.node, flow.operand);
      way.classList.add(when);
      way.querySelector("text").textContent = flow.gradient;
      showGradient(flow.parent, flow.total, true);
    }
  });
  button("count").textContent = `step ${done} of ${steps.length}`;
  button("sentence").textContent = done ? steps[done - 1].sentence
    : "The forward pass is done, no gradient is known. Press → to begin at the result, with d_out = "
      + steps[0].gradient + ".";
  const current = node(steps[Math.max(0, done - 1)].node);
  current.scrollIntoView({ block: "center", inline: "center", behavior: motion });
}

function pause() {
  clearInterval(timer);
  timer = null;
  button("play").textContent = "Play";
}

function play() {
  if (timer) return pause();
  if (done === steps.length) show(0);
  button("play").textContent = "Pause";
  timer = setInterval(() => { show(done + 1); if (done === steps.length) pause(); }, 1200);
}

const actions = {
  first: () => { pause(); show(0); },
  back: () => { pause(); show(done - 1); },
  next: () => { pause(); show(done + 1); },
  last: () => { pause(); show(steps.length); },
  play,
  fit: () => document.querySelector("main").classList.toggle("fit"),
};
const keys = { Home: "first", ArrowLeft: "back", ArrowRight: "next", End: "last", " ": "play", f: "fit" };
for (const [name, act] of Object.entries(actions)) button(name).addEventListener("click", act);
document.addEventListener("keydown", (event) => {
  if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  actions[keys[event.key]]();
});
show(Number(location.hash.slice(1)));  // graph.html#3 opens at the third step
motion = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
"""
