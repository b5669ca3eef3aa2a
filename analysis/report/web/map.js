// The mean routing weight of every route at the chosen step.

const shade = (weight) => weightColour(settings.stretch ? Math.sqrt(weight) : weight);

const routing = {
  draw(figure) {
    this.cells = [];
    const nothing = reads.name.length ? "No routing was recorded (routing.h5)." : data.not_probed;
    if (!run.snapshots.step.length) return noteNothing(figure, nothing);
    const grid = readGrid(widthOf(figure), "routing weights of every read", (read, s) => this.describe(read, s));
    this.cells = grid.cells;
    const stretch = choice("stretch low weights (square root)", settings.stretch, (on) => {
      settings.stretch = on;
      redraw();
    });
    figure.replaceChildren(html("div", {class: "tools"}, html("span", {}, "mean weight \u03b1"), html("span", {}, "0"),
                             key(colourBar(shade, 50, 150), "1", 150), absentKey(), stretch),
      grid.drawing,
      caption("Mean routing weight of every read on every source.",
        "The weights of one read (a column) sum to one over its sources; the mean is over all probe tokens. Move the " +
          `step at the top of the page, or play it.${ofRun()}`));
  },

  weight: (read, s) => run.snapshots.alpha[drawn.snapshot][read * sources.length + s] / 1e4,

  describe(read, s) {
    const value = this.weight(read, s);
    const name = `${reads.name[read]} \u2190 ${sourceName(sources[s])}`;
    if (value < 0) return `${name}\nno such source at this read`;
    const count = sources.filter((_, other) => this.weight(read, other) >= 0).length;
    const spread = run.snapshots.alpha_std[drawn.snapshot][read * sources.length + s] / 1e4;
    return `${name}\nstep ${grouped(run.snapshots.step[drawn.snapshot])}\n\u03b1 = ${digits(value, 4)} \u00b1 ` +
      `${digits(spread, 4)} (s.d. over tokens)\nuniform over ${count}: ${digits(1 / count, 4)}`;
  },

  update() {
    for (const {box, text, read, s} of this.cells) {
      const value = this.weight(read, s);
      box.setAttribute("fill", value < 0 ? "url(#absent)" : shade(value));
      if (!text) continue;
      text.textContent = value < 0 ? "" : value.toFixed(2);
      text.style.fill = (settings.stretch ? Math.sqrt(value) : value) > 0.42 ? "#fff" : "#1b1f24";
    }
  }
};
