"use strict";
// A chart's curves are their own data: values are read off the pixels of the nearest points.
const numbers = (text) => (text.match(/-?[\d.]+(?:e[-+]?\d+)?/g) || []).map(Number);
const value = ([low, high, start, end, log], pixel) => {
  const share = (pixel - start) / (end - start);
  return log ? low * (high / low) ** share : low + share * (high - low);
};
for (const chart of document.querySelectorAll("figure svg.tgc-chart")) {
  const [across, up] = [numbers(chart.dataset.x), numbers(chart.dataset.y)];
  const caption = chart.closest("figure").querySelector("figcaption"), resting = caption.textContent;
  const cross = chart.querySelector(".cross");
  const curves = [...chart.querySelectorAll(".series")].map((curve) => {
    const path = curve.querySelector("path"), dots = [...curve.querySelectorAll("circle")];
    const flat = path ? numbers(path.getAttribute("d"))
      : dots.flatMap((dot) => [Number(dot.getAttribute("cx")), Number(dot.getAttribute("cy"))]);
    const points = flat.flatMap((x, index) => index % 2 ? [] : [[x, flat[index + 1]]]);
    return { name: curve.dataset.name, points };
  }).filter((curve) => curve.points.length);
  const nearest = (points, x) => points.reduce((best, point) =>
    Math.abs(best[0] - x) > Math.abs(point[0] - x) ? point : best);
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const pointer = (event.clientX - box.left) * chart.viewBox.baseVal.width / box.width;
    const x = nearest(curves.map((curve) => nearest(curve.points, pointer)), pointer)[0];
    const found = curves.map((curve) => [curve.name, nearest(curve.points, x)])
      .filter(([, point]) => 3 > Math.abs(point[0] - x))
      .map(([name, point]) => `${name} ${Number(value(up, point[1]).toPrecision(4))}`);
    const position = Math.round(value(across, x)).toLocaleString("en-US");
    caption.textContent = `${chart.dataset.xName} ${position}: ${found.join(", ")}`;
    cross.setAttribute("d", `M${x} ${up[3]}V${up[2]}`);
  });
  chart.addEventListener("pointerleave", () => {
    caption.textContent = resting;
    cross.setAttribute("d", "");
  });
}
