// What all figures of the report are made of: elements, scales, axes, lines with bands, and the tooltip. Text always enters
// the page as text, never as markup.
"use strict";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}
const svg = (tag, attributes = {}, ...children) => build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const html = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);

// ---- numbers ----

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
const digits = (value, places) => (known(value) ? value.toFixed(places).replace("-", "\u2212") : "\u2013");
const signed = (value, places) => (known(value) ? (value > 0 ? "+" : "") + digits(value, places) : "\u2013");
const grouped = (value) => Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
function metric(value) {
  for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= size) return Number((value / size).toPrecision(3)) + "\u202f" + letter;
  }
  return String(Number(value.toPrecision(3)));
}
function plain(value) {
  if (value === 0) return "0";
  const text = Math.abs(value) < 1e-3 ? value.toExponential(0).replace("e-", "e\u2212") : String(Number(value.toPrecision(6)));
  return text.replace(/^-/, "\u2212");
}

// ---- scales: functions from data to pixels, with `ticks` and `format` ----

function linearScale([low, high], [start, end], count = 5, format = plain) {
  if (high <= low) high = low + 1;
  const scale = (value) => start + ((value - low) / (high - low)) * (end - start);
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const stride = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  scale.ticks = [];
  for (let k = Math.ceil(low / stride - 1e-9); k * stride <= high + 1e-9 * stride; ++k) scale.ticks.push(Number((k * stride).toPrecision(12)));
  scale.format = format;
  scale.domain = [low, high];
  return scale;
}

/// Position by log(1 + value / unit), so that the beginning, at 0, has its place.
function logScale(high, unit, [start, end], format = metric) {
  if (high <= 0) high = unit;
  const full = Math.log1p(high / unit);
  const scale = (value) => start + (Math.log1p(value / unit) / full) * (end - start);
  scale.format = format;
  scale.domain = [0, high];
  // Round numbers, the rounder first, as far as they keep their distance.
  const kept = [0];
  for (const steps of [[1], [2, 5]]) {
    for (let power = 10 ** Math.floor(Math.log10(unit)); power <= high; power *= 10) {
      for (const step of steps) {
        const value = step * power;
        if (value <= high && value >= unit * 0.99 && kept.every((other) => Math.abs(scale(other) - scale(value)) > 44)) kept.push(value);
      }
    }
  }
  scale.ticks = kept.sort((a, b) => a - b);
  return scale;
}

/// Linear within +-linear, logarithmic beyond.
function symlogScale([low, high], linear, [start, end]) {
  const bend = (value) => Math.asinh(value / linear);
  const scale = (value) => start + ((bend(value) - bend(low)) / (bend(high) - bend(low))) * (end - start);
  scale.domain = [low, high];
  scale.format = plain;
  const kept = [0];
  for (let power = 10 ** Math.ceil(Math.log10(high - low)); power >= linear * 0.99; power /= 10) {
    for (const sign of [1, -1]) {
      const value = sign * Number(power.toPrecision(3));
      if (value >= low && value <= high && kept.every((other) => Math.abs(scale(other) - scale(value)) > 20)) kept.push(value);
    }
  }
  scale.ticks = kept.sort((a, b) => a - b);
  return scale;
}

// ---- colours ----

function ramp(stops) {
  const rgb = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  return (share) => {
    const position = Math.min(Math.max(share, 0), 1) * (rgb.length - 1);
    const index = Math.min(Math.floor(position), rgb.length - 2);
    const mixed = rgb[index].map((low, c) => Math.round(low + (rgb[index + 1][c] - low) * (position - index)));
    return `rgb(${mixed.join(",")})`;
  };
}
/// Weights: even steps of lightness, light to dark, legible in grey.
const weightColour = ramp(["#f3faf3", "#d3efdb", "#a0dfb9", "#5bcaad", "#38aaac", "#348aa6", "#366a9f", "#40498e", "#382a54", "#1e111f"]);
/// Depth: dark to light, first layer to last.
const depthColour = ramp(["#35145f", "#34558b", "#1f8a8a", "#67ad4b", "#d9a400"]);
/// Effects: blue below zero, white, red above.
const signColour = ramp(["#08519c", "#3f8fc4", "#a6cde3", "#ffffff", "#f6b394", "#d6604d", "#8f1529"]);
/// Okabe and Ito's palette.
const familyColour = { embedding: "#e69f00", history: "#0072b2", current: "#009e73" };

// ---- tooltip ----

const tip = {
  show(x, y, text) {
    const box = document.getElementById("tip");
    box.textContent = text;
    box.style.display = "block";
    const left = Math.min(x + 14, window.innerWidth - box.offsetWidth - 8);
    const below = y + 14 + box.offsetHeight < window.innerHeight;
    box.style.left = Math.max(left, 8) + "px";
    box.style.top = (below ? y + 14 : y - box.offsetHeight - 10) + "px";
  },
  hide() {
    document.getElementById("tip").style.display = "none";
  },
};

/// Over `area`, shows the text of the nearest of `points` ({x, y, text: a string or what makes it}, in the drawing's pixels);
/// with the keyboard, of one after the other.
function hover(drawing, area, points, reach = 26) {
  const mark = svg("circle", { r: 4.5, fill: "none", stroke: "#1b1f24", "stroke-width": 1.5, visibility: "hidden", "pointer-events": "none" });
  const catcher = svg("rect", { ...area, class: "catcher", fill: "transparent", tabindex: points.length ? 0 : undefined, role: "img", "aria-label": "values: arrow keys go through them" });
  let at = -1;
  const hide = () => {
    mark.setAttribute("visibility", "hidden");
    tip.hide();
  };
  const show = (point, x, y) => {
    mark.setAttribute("visibility", "visible");
    mark.setAttribute("cx", point.x);
    mark.setAttribute("cy", point.y);
    tip.show(x, y, typeof point.text === "function" ? point.text() : point.text);
  };
  catcher.addEventListener("pointermove", (event) => {
    const frame = drawing.getBoundingClientRect(), factor = drawing.viewBox.baseVal.width / frame.width;
    const x = (event.clientX - frame.left) * factor, y = (event.clientY - frame.top) * factor;
    let best = null, distance = reach * reach;
    for (const point of points) {
      const d = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (d < distance) [best, distance] = [point, d];
    }
    if (!best) return hide();
    at = points.indexOf(best);
    show(best, event.clientX, event.clientY);
  });
  catcher.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") return hide();
    if (!move) return;
    event.preventDefault();
    at = Math.min(Math.max(at + move, 0), points.length - 1);
    const frame = drawing.getBoundingClientRect(), factor = drawing.viewBox.baseVal.width / frame.width;
    show(points[at], frame.left + points[at].x / factor, frame.top + points[at].y / factor);
  });
  catcher.addEventListener("pointerleave", hide);
  catcher.addEventListener("blur", hide);
  drawing.append(mark, catcher);
}

// ---- panels ----

const canvas = (width, height, label) => svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });

/// Grid, axes, ticks and labels of one panel whose plotting area is {x, y, width, height}.
function panel(drawing, area, xScale, yScale, { title, xLabel, yLabel, xTicks = true, yTicks = true, zero = false }) {
  const bottom = area.y + area.height, right = area.x + area.width;
  const group = svg("g");
  for (const tick of yScale.ticks) {
    const y = yScale(tick);
    group.append(svg("line", { class: "grid", x1: area.x, x2: right, y1: y, y2: y }));
    if (yTicks) group.append(svg("text", { class: "tick", x: area.x - 7, y: y + 4, "text-anchor": "end" }, yScale.format(tick)));
  }
  for (const tick of xScale.ticks) {
    const x = xScale(tick);
    group.append(svg("line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4 }));
    if (xTicks) group.append(svg("text", { class: "tick", x, y: bottom + 17, "text-anchor": "middle" }, xScale.format(tick)));
  }
  if (zero) group.append(svg("line", { x1: area.x, x2: right, y1: yScale(0), y2: yScale(0), stroke: "#7b848e" }));
  group.append(svg("line", { class: "axis", x1: area.x, x2: right, y1: bottom, y2: bottom }));
  group.append(svg("line", { class: "axis", x1: area.x, x2: area.x, y1: area.y, y2: bottom }));
  if (title) group.append(svg("text", { class: "title", x: area.x, y: area.y - 9 }, title));
  if (xLabel) group.append(svg("text", { x: area.x + area.width / 2, y: bottom + 36, "text-anchor": "middle" }, xLabel));
  if (yLabel) {
    const x = area.x - 48, y = area.y + area.height / 2;
    group.append(svg("text", { x, y, "text-anchor": "middle", transform: `rotate(-90 ${x} ${y})` }, yLabel));
  }
  drawing.append(group);
}

/// A line through [x, y] pixel pairs; null interrupts it.
function line(points, attributes) {
  let path = "", pen = false;
  for (const point of points) {
    if (point) path += `${pen ? "L" : "M"}${point[0].toFixed(1)},${point[1].toFixed(1)}`;
    pen = point !== null;
  }
  return svg("path", { d: path, fill: "none", "stroke-linejoin": "round", ...attributes });
}

/// The area between two lines of [x, low, high]; null interrupts it.
function band(points, attributes) {
  let path = "";
  for (let begin = 0; begin < points.length; ) {
    let end = begin;
    while (end < points.length && points[end]) ++end;
    const run = points.slice(begin, end);
    if (run.length > 1) {
      const there = run.map(([x, low]) => `${x.toFixed(1)},${low.toFixed(1)}`);
      const back = run.map(([x, , high]) => `${x.toFixed(1)},${high.toFixed(1)}`).reverse();
      path += `M${there.join("L")}L${back.join("L")}Z`;
    }
    begin = end + 1;
  }
  return svg("path", { d: path, stroke: "none", ...attributes });
}

/// A symbol of a legend or plot: circle (attention) or square (MLP), at (0, 0).
function symbol(kind, size, attributes) {
  if (kind === "attn") return svg("circle", { r: size, ...attributes });
  return svg("rect", { x: -size * 0.9, y: -size * 0.9, width: size * 1.8, height: size * 1.8, ...attributes });
}

const key = (picture, text, width = 18) =>
  html("span", { class: "key" }, svg("svg", { viewBox: `0 0 ${width} 14`, width, height: 14 }, picture), text);

function choice(text, initial, changed) {
  const box = html("input", { type: "checkbox" });
  box.checked = initial;
  box.addEventListener("change", () => changed(box.checked));
  return html("label", {}, box, text);
}

function select(label, options, chosen, changed) {
  const box = html("select", {}, ...options.map(([value, text]) => html("option", { value }, text)));
  box.value = chosen;
  box.addEventListener("change", () => changed(box.value));
  return html("label", {}, label, box);
}
