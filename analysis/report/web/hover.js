// The value under the pointer, or the one that the arrow keys choose.

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

/// Over `area`, shows the text of the nearest of `points` ({x, y, text: a string or what makes it}, in the drawing's
/// pixels); with the keyboard, of one after the other.
function hover(drawing, area, points, reach = 26) {
  const mark = svg("circle",
    {r: 4.5, fill: "none", stroke: "#1b1f24", "stroke-width": 1.5, visibility: "hidden", "pointer-events": "none"});
  const catcher = svg("rect", {
    ...area,
    class: "catcher",
    fill: "transparent",
    tabindex: points.length ? 0 : undefined,
    role: "img",
    "aria-label": "values: arrow keys go through them"
  });
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
    const move = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
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
