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
  document.querySelectorAll(".edge .flow").forEach((line) => { line.textContent = ""; });
  document.querySelectorAll(".now, .past").forEach((thing) => { thing.classList.remove("now", "past"); });
  steps.slice(0, done).forEach((step, position) => {
    const when = position === done - 1 ? "now" : "past";
    node(step.node).classList.add(when);
    showGradient(step.node, step.gradient, false);
    for (const flow of step.flows) {
      const way = edge(flow.parent, step.node, flow.operand);
      way.classList.add(when);
      const local = way.querySelector(".local").textContent;
      way.querySelector(".flow").textContent = local ? " → " + flow.gradient : flow.gradient;
      showGradient(flow.parent, flow.total, true);
    }
  });
  button("count").textContent = `step ${done} of ${steps.length}`;
  button("sentence").textContent = done ? steps[done - 1].sentence
    : "The forward pass is done; no gradient is known yet. Press → to begin at the result, with d_out = "
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
