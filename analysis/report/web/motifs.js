// Motifs over training: effect beside its control, mass below, and when each stands out.

const emergence = {
  absent: () => !motifs.length || !data.motif_step.length,
  draw(figure) {
    this.marks = [];
    const width = widthOf(figure), steps = data.motif_step, high = steps.at(-1);
    const last = (motif) => motif.excess.value.at(-1) ?? -Infinity;
    const named = motifs.filter((motif) => motif.of_paper), found = motifs.filter((motif) => !motif.of_paper).sort((a, b) => last(b) - last(a));
    const shown = [...named, ...found.slice(0, 6)];
    const columns = width >= 860 ? 3 : width >= 560 ? 2 : 1, left = 62, gapX = 20, w = (width - left - 8 - gapX * (columns - 1)) / columns;
    const tall = 170, low = 58, rowHeight = 54 + tall + 12 + low + 58;
    const rows = Math.ceil(shown.length / columns), drawing = canvas(width, rows * rowHeight - 6, "effects of the motifs over training");
    const ends = shown.flatMap((motif) => [motif.effect, motif.control].flatMap((line) => [...line.value, ...line.lower, ...line.upper]));
    const heaviest = Math.min(1, 1.08 * Math.max(0.05, ...shown.flatMap((motif) => [...motif.mass.value, ...motif.mass.upper]).filter(known)));
    shown.forEach((motif, i) => {
      const column = i % columns, top = 54 + Math.floor(i / columns) * rowHeight;
      const area = { x: left + column * (w + gapX), y: top, width: w, height: tall }, weight = { ...area, y: top + tall + 12, height: low };
      const x = stepScale(high, [area.x, area.x + w]), y = effectScale(ends, [top + tall, top]), m = linearScale([0, heaviest], [weight.y + low, weight.y], 2);
      const colour = familyColour[motif.family];
      panel(drawing, area, x, y, { xTicks: false, yTicks: column === 0, yLabel: column === 0 ? EFFECT : null, zero: true });
      panel(drawing, weight, x, m, { yTicks: column === 0, yLabel: column === 0 ? "mass" : null, xLabel: "training step" });
      drawing.append(svg("text", { class: "title", x: area.x, y: top - 26 }, motif.title), svg("text", { class: "note", x: area.x, y: top - 10 }, steps.length > 1 ? `onset ${onsetText(motif.onset, steps)}; by mass ${onsetText(motif.mass_onset, steps)}` : ""));
      const path = (line, scale) => steps.map((step, k) => (known(line.value[k]) ? [x(step), scale(line.value[k])] : null));
      const bounds = (line, scale) => steps.map((step, k) => (known(line.lower[k]) && known(line.upper[k]) ? [x(step), scale(line.lower[k]), scale(line.upper[k])] : null));
      for (const other of data.runs > 1 ? subjects : beside) {
        const same = other.motifs.find((one) => one.name === motif.name);
        if (!same || other.baseline) continue;
        drawing.append(line(other.step.map((step, k) => (known(same.effect[k]) && step <= high ? [x(step), y(same.effect[k])] : null)), { stroke: colour, "stroke-width": 1, "stroke-opacity": 0.55 }));
      }
      drawing.append(band(bounds(motif.control, y), { fill: "#7b848e", "fill-opacity": 0.2 }), line(path(motif.control, y), { stroke: "#6a737d", "stroke-width": 1.6, "stroke-dasharray": "4 3" }));
      drawing.append(band(bounds(motif.effect, y), { fill: colour, "fill-opacity": 0.22 }), line(path(motif.effect, y), { stroke: colour, "stroke-width": 2.2 }));
      drawing.append(band(bounds(motif.mass, m), { fill: colour, "fill-opacity": 0.22 }), line(path(motif.mass, m), { stroke: colour, "stroke-width": 1.8 }));
      if (known(motif.uniform)) drawing.append(svg("line", { x1: weight.x, x2: weight.x + w, y1: m(motif.uniform), y2: m(motif.uniform), stroke: "#7b848e", "stroke-dasharray": "5 4" }));
      this.onset(drawing, area, x, motif.onset, colour);
      this.onset(drawing, weight, x, motif.mass_onset, colour);
      this.marks.push(marker(drawing, { ...area, height: tall + 12 + low }, x, () => Math.min(drawn.step, high)));
      const say = (k) => `${motif.title}\nstep ${grouped(steps[k])}\neffect ${signed(motif.effect.value[k], 4)}${interval(motif.effect.lower[k], motif.effect.upper[k], 4)}\ncontrol ${signed(motif.control.value[k], 4)}${interval(motif.control.lower[k], motif.control.upper[k], 4)}\nexcess ${signed(motif.excess.value[k], 4)}${interval(motif.excess.lower[k], motif.excess.upper[k], 4)}\nmass ${digits(motif.mass.value[k], 3)}`;
      const points = (lines, scale) => lines.flatMap((one) => path(one, scale).map((point, k) => point && { x: point[0], y: point[1], text: say(k) }).filter(Boolean));
      hover(drawing, area, points([motif.effect, motif.control], y));
      hover(drawing, weight, points([motif.mass], m));
    });
    const more = found.length > 6 ? ` ${found.length - 6} more slices shown above their control are left out.` : "";
    const others = data.runs > 1 || beside.some((one) => !one.baseline) ? " Thin lines: single runs." : "";
    figure.replaceChildren(
      html("div", { class: "tools" }, key(svg("rect", { y: 5, width: 18, height: 4, fill: "#1b1f24" }), `effect (${data.motif_ablation})`), key(svg("line", { x1: 0, x2: 18, y1: 7, y2: 7, stroke: "#6a737d", "stroke-width": 2, "stroke-dasharray": "4 3" }), "control: as much mass, random sources"), key(svg("g", {}, svg("line", { x1: 0, x2: 18, y1: 7, y2: 7, stroke: "#1b1f24", "stroke-width": 2 }), svg("path", { d: "M9,2L14,7L9,12L4,7Z", fill: "#fff", stroke: "#1b1f24", "stroke-width": 1.6 })), "onset with 95 % interval"), effectChoice()),
      drawing,
      caption(this, "The motifs over training.", `First the three that the paper names, then slices that are shown to exceed their control. Above: rise of the loss under the ablation ${data.motif_ablation} of the motif's slices, and that of controls with the same mass; below: the mass (dashed: what uniform routing would give). An onset is where half of the last step's excess, or of the mass above uniform, is there to stay. Bands: 95\u00a0% intervals, pointwise. ${data.pooled}${others}${more} Steps are spaced as log(1 + step).`));
  },
  /// A diamond at the onset and a bar along its interval, at the foot of the panel; an open end points on.
  onset(drawing, area, x, [value, lower, upper], colour) {
    if (!known(value) || data.motif_step.length < 2) return;
    const y = area.y + area.height, end = area.x + area.width, from = known(lower) ? x(lower) : x(value), to = known(upper) ? x(upper) : end;
    drawing.append(svg("line", { x1: x(value), x2: x(value), y1: area.y, y2: y, stroke: colour, "stroke-opacity": 0.5, "stroke-dasharray": "1 3" }));
    drawing.append(svg("line", { x1: from, x2: to, y1: y, y2: y, stroke: colour, "stroke-width": 4, "stroke-opacity": 0.75 }));
    if (!known(upper)) drawing.append(svg("path", { d: `M${end - 7},${y - 5}L${end},${y}L${end - 7},${y + 5}`, fill: "none", stroke: colour, "stroke-width": 2 }));
    drawing.append(svg("path", { d: `M${x(value)},${y - 6}l6,6l-6,6l-6,-6Z`, fill: "#fff", stroke: colour, "stroke-width": 2 }));
  },
  update() {
    for (const move of this.marks || []) move();
  },
};
