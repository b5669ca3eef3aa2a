// Parts of figures: panels with axes, lines with bands, symbols, legends and controls.

const canvas = (width, height, label) =>
  svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label});

/// Grid, axes, ticks and labels of one panel whose plotting area is {x, y, width, height}.
function panel(drawing, area, xScale, yScale, {title, xLabel, yLabel, xTicks = true, yTicks = true, zero = false}) {
  const bottom = area.y + area.height, right = area.x + area.width;
  const group = svg("g");
  for (const tick of yScale.ticks) {
    const y = yScale(tick);
    group.append(svg("line", {class: "grid", x1: area.x, x2: right, y1: y, y2: y}));
    if (yTicks)
      group.append(svg("text", {class: "tick", x: area.x - 7, y: y + 4, "text-anchor": "end"}, yScale.format(tick)));
  }
  for (const tick of xScale.ticks) {
    const x = xScale(tick);
    group.append(svg("line", {class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4}));
    if (xTicks)
      group.append(svg("text", {class: "tick", x, y: bottom + 17, "text-anchor": "middle"}, xScale.format(tick)));
  }
  if (zero) group.append(svg("line", {x1: area.x, x2: right, y1: yScale(0), y2: yScale(0), stroke: "#7b848e"}));
  group.append(svg("line", {class: "axis", x1: area.x, x2: right, y1: bottom, y2: bottom}));
  group.append(svg("line", {class: "axis", x1: area.x, x2: area.x, y1: area.y, y2: bottom}));
  if (title) group.append(svg("text", {class: "title", x: area.x, y: area.y - 9}, title));
  if (xLabel) group.append(svg("text", {x: area.x + area.width / 2, y: bottom + 36, "text-anchor": "middle"}, xLabel));
  if (yLabel) {
    const x = area.x - 48, y = area.y + area.height / 2;
    group.append(svg("text", {x, y, "text-anchor": "middle", transform: `rotate(-90 ${x} ${y})`}, yLabel));
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
  return svg("path", {d: path, fill: "none", "stroke-linejoin": "round", ...attributes});
}

/// The area between two lines of [x, low, high]; null interrupts it.
function band(points, attributes) {
  let path = "";
  for (let begin = 0; begin < points.length;) {
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
  return svg("path", {d: path, stroke: "none", ...attributes});
}

/// A symbol of a legend or plot: circle (attention) or square (MLP), at (0, 0).
function symbol(kind, size, attributes) {
  if (kind === "attn") return svg("circle", {r: size, ...attributes});
  return svg("rect", {x: -size * 0.9, y: -size * 0.9, width: size * 1.8, height: size * 1.8, ...attributes});
}

const key = (picture, text, width = 18) =>
  html("span", {class: "key"}, svg("svg", {viewBox: `0 0 ${width} 14`, width, height: 14}, picture), text);

function choice(text, initial, changed) {
  const box = html("input", {type: "checkbox"});
  box.checked = initial;
  box.addEventListener("change", () => changed(box.checked));
  return html("label", {}, box, text);
}

function select(label, options, chosen, changed) {
  const box = html("select", {}, ...options.map(([value, text]) => html("option", {value}, text)));
  box.value = chosen;
  box.addEventListener("change", () => changed(box.value));
  return html("label", {}, label, box);
}
