// What an edge is, as a drawing: sources on the left, one read on the right, and what a source is to it.

function edgeSchema(width) {
  const w = Math.min(width, 640), small = w < 480, h = 178, left = small ? 84 : 120;
  const drawing = canvas(w, h,
    "an edge is one source of one read: it gives the read a key, which makes its weight, " +
      "and a value, which is mixed in");
  drawing.style.width = w + "px";
  const text = (x, y, words, anchor = "start", style = {}) =>
    drawing.append(svg("text", {x, y, "text-anchor": anchor, ...style}, words));
  const reads_at = {x: w - (small ? 110 : 190), y: 96};
  [["embedding", 46, familyColour.embedding], ["earlier block", 96, familyColour.history],
    ["current block", 146, familyColour.current]]
    .forEach(([name, y, colour], i) => {
      drawing.append(svg("rect",
        {x: 4, y: y - 14, width: left - 8, height: 28, rx: 4, fill: "none", stroke: colour, "stroke-width": 1.5}));
      text(left / 2, y + 4, name, "middle");
      const chosen = i === 0;
      drawing.append(svg("path", {
        d: `M${left},${y} C${(left + reads_at.x) / 2},${y} ${(left + reads_at.x) / 2},${reads_at.y} ` +
          `${reads_at.x - 16},${reads_at.y}`,
        fill: "none",
        stroke: colour,
        "stroke-width": chosen ? 4 : 1.5,
        "stroke-opacity": chosen ? 1 : 0.45
      }));
    });
  const middle = (left + reads_at.x) / 2;
  text(middle, 16, small ? "one edge" : "one edge: its key makes a weight,", "middle", {"font-weight": 600});
  text(middle, 32, small ? "key and value" : "weight times value is mixed in", "middle", {"font-weight": 600});
  drawing.append(svg("circle", {cx: reads_at.x, cy: reads_at.y, r: 14, fill: "#fff", stroke: "#1b1f24"}));
  text(reads_at.x, reads_at.y + 5, "\u03a3", "middle");
  drawing.append(
    svg("line", {x1: reads_at.x + 14, x2: reads_at.x + 34, y1: reads_at.y, y2: reads_at.y, stroke: "#1b1f24"}));
  text(reads_at.x + 38, reads_at.y - 3, small ? "attention" : "attention or MLP");
  text(reads_at.x + 38, reads_at.y + 13, small ? "or MLP" : "of one layer");
  return drawing;
}
