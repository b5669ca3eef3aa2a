// A map of all routes: reads across, sources down.

/// Cells for every (read, source): attention reads above, MLP reads and the final one below. Returns {drawing, cells};
/// a cell is {box, text, read, s}, its text null where there is no room.
function readGrid(width, label, describe) {
  const left = 84, gap = 10, cells = [], points = [];
  const order = (sublayer) => reads.name.map((_, read) => read).filter((read) => reads.sublayer[read] === sublayer);
  const finals = order("final");
  const rows = [
    ["Attention reads", order("attn")],
    [finals.length ? "MLP reads, and the final read" : "MLP reads", [...order("mlp"), ...finals]]
  ];
  const cell = (width - left - 8 - (finals.length ? gap : 0)) / (layers + finals.length);
  const height = Math.min(30, Math.max(9, Math.round(360 / sources.length)));
  const drawing = canvas(width, 2 * (height * sources.length + 82) - 4, label);
  drawing.append(svg("defs", {}, absentPattern()));
  const every = Math.max(1, Math.ceil(26 / cell));
  const x = (read) => left + (isFinal(read) ? layers * cell + gap : reads.layer[read] * cell);
  const roomy = cell >= 34 && height >= 15;
  rows.forEach(([title, list], row) => {
    const top = 38 + row * (height * sources.length + 82), bottom = top + height * sources.length;
    drawing.append(svg("text", {class: "title", x: 0, y: top - 24}, title));
    labelSources(drawing, left, top, height);
    labelDepths(drawing, list, x, cell, top);
    for (const read of list) {
      const middle = x(read) + cell / 2;
      if (isFinal(read) || reads.layer[read] % every === 0) {
        const name = isFinal(read) ? "final" : reads.layer[read];
        drawing.append(svg("text", {class: "tick", x: middle, y: bottom + 15, "text-anchor": "middle"}, name));
      }
      sources.forEach((_, s) => {
        const y = top + s * height;
        const box = svg("rect", {x: x(read) + 0.5, y: y + 0.5, width: cell - 1, height: height - 1});
        const text =
          roomy ? svg("text", {class: "tick", x: middle, y: y + height / 2 + 4, "text-anchor": "middle"}) : null;
        drawing.append(box);
        if (text) drawing.append(text);
        cells.push({box, text, read, s});
        points.push({x: middle, y: y + height / 2, text: () => describe(read, s)});
      });
    }
    drawing.append(svg("text", {x: left + (layers * cell) / 2, y: bottom + 31, "text-anchor": "middle"}, "layer"));
    hover(drawing, {x: left, y: top, width: width - left - 8, height: bottom - top},
      points.filter((point) => point.y > top), Math.hypot(cell, height) / 2 + 1);
  });
  return {drawing, cells};
}

/// Hatching, for a source that a read does not have.
function absentPattern() {
  return svg("pattern",
    {id: "absent", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)"},
    svg("rect", {width: 5, height: 5, fill: "#f5f6f7"}),
    svg("line", {x1: 0, y1: 0, x2: 0, y2: 5, stroke: "#dfe3e6", "stroke-width": 1.5}));
}

function labelSources(drawing, left, top, height) {
  const every = Math.max(1, Math.ceil(13 / height)), last = sources.length - 1;
  sources.forEach((source, s) => {
    if (s !== last && (s % every || last - s < every)) return;
    const y = top + (s + 0.5) * height + 4;
    drawing.append(svg("text", {class: "tick", x: left - 8, y, "text-anchor": "end"}, sourceName(source)));
  });
}

/// A coloured line above the reads of each third of the model.
function labelDepths(drawing, list, x, cell, top) {
  for (const depth of depths) {
    const inside = list.filter((read) => !isFinal(read) && reads.depth[read] === depth);
    if (!inside.length) continue;
    const from = x(inside[0]), to = x(inside.at(-1)) + cell;
    drawing.append(
      svg("line", {x1: from + 1, x2: to - 1, y1: top - 5, y2: top - 5, stroke: thirdColour(depth), "stroke-width": 3}),
      svg("text", {class: "note", x: (from + to) / 2, y: top - 11, "text-anchor": "middle"}, depth));
  }
}

const colourBar = (colour, count, width) => svg("g", {},
  ...Array.from({length: count},
    (_, i) => svg(
      "rect", {x: (i * width) / count, y: 0, width: width / count + 0.3, height: 14, fill: colour(i / (count - 1))})));

function absentKey() {
  const stripes =
    [4, 9, 14].map((x) => svg("line", {x1: x - 4, y1: 13, x2: x + 4, y2: 1, stroke: "#dfe3e6", "stroke-width": 1.5}));
  const box = svg("rect", {x: 0.5, y: 0.5, width: 17, height: 13, fill: "#f5f6f7", stroke: "#dfe3e6"});
  return key(svg("g", {}, box, ...stripes), "the read has no such source");
}
