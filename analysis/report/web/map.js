// The mean mass of every route at the chosen step: its weight, or another kind of mass.

const shade = (weight) =>
  weightColour(Math.min(1, Math.max(0, settings.stretch ? Math.sqrt(Math.max(0, weight)) : weight)));

const routing = {
  draw(figure) {
    this.cells = [];
    const nothing = reads.name.length ? "No routing was recorded (routing.h5)." : data.not_probed;
    if (!run.snapshots.step.length) return noteNothing(figure, nothing);
    if (this.missing()) return noteNothing(figure, this.missing());
    const every = run.snapshots.step.flatMap(
      (_, at) => reads.name.flatMap((__, read) => sources.map((___, s) => this.mass(read, s, at))));
    this.high = Math.max(1e-9, ...every.filter(known).map(Math.abs));
    const grid = readGrid(widthOf(figure), "routing masses of every read", (read, s) => this.describe(read, s));
    this.cells = grid.cells;
    figure.replaceChildren(html("div", {class: "tools"}, ...this.keys()), grid.drawing,
      caption(`Mass of every source at every read: ${massKind()}.`, this.explanation()));
  },

  keys() {
    const end = plain(Number(this.high.toPrecision(2)));
    if (settings.lift) {
      return [
        html("span", {}, `mean ${massKind()}`), html("span", {}, "\u2212" + end),
        key(colourBar(signColour, 60, 180), "+" + end, 180), absentKey()
      ];
    }
    const stretch = choice("stretch low values (square root)", settings.stretch, (on) => {
      settings.stretch = on;
      redraw();
    });
    return [
      html("span", {}, `mean ${massKind()}`), html("span", {}, "0"), key(colourBar(shade, 50, 150), "1", 150),
      absentKey(), stretch
    ];
  },

  explanation() {
    const sum =
      settings.lift ? "The lifts of one read (a column) sum to zero" : "The masses of one read (a column) sum to one";
    const negative = settings.mass === "contribution" && !settings.lift
      ? " A contribution below 0 (a source that points away from the mixture) has the colour of 0, one above 1 that of 1."
      : "";
    return `${sum} over its sources; the mean is over all probe tokens.${negative} Move the step at the top of the ` +
      `page, or play it.${ofRun()}`;
  },

  missing() {
    const {step} = run.snapshots, rows = run.snapshots[chosenMass().routes];
    if (!rows.some((row) => row)) {
      return `This record has no ${chosenMass().name} mass: it was made before routing.h5 1.2.`;
    }
    return settings.lift && (step[0] !== 0 || !rows[0]) ? "Step 0 was not recorded: there is no lift." : "";
  },

  /// At a snapshot; null where the read has no such source.
  mass(read, s, at = drawn.snapshot) {
    const value = (row) => {
      const mass = (run.snapshots[chosenMass().routes][row] || [])[read * sources.length + s];
      return known(mass) && !(settings.mass === "alpha" && mass < 0) ? mass / 1e4 : null;
    };
    const own = value(at);
    return settings.lift && known(own) ? own - value(0) : own;
  },

  describe(read, s) {
    const value = this.mass(read, s);
    const name = `${reads.name[read]} \u2190 ${sourceName(sources[s])}`;
    const count = sources.filter((_, other) => this.mass(read, other) !== null).length;
    if (!count) return `${name}\nnot recorded at this step`;
    if (!known(value)) return `${name}\nno such source at this read`;
    const spread = run.snapshots.alpha_std[drawn.snapshot][read * sources.length + s] / 1e4;
    const text = settings.lift ? signed(value, 4) : digits(value, 4);
    return `${name}\nstep ${grouped(run.snapshots.step[drawn.snapshot])}\n${massKind()} ${text}` +
      (isPlainAlpha() ? ` \u00b1 ${digits(spread, 4)} (s.d. over tokens)` : "") +
      (settings.lift ? "" : `\nuniform over ${count}: ${digits(1 / count, 4)}`);
  },

  update() {
    for (const {box, text, read, s} of this.cells) {
      const value = this.mass(read, s), there = known(value);
      const tone = settings.lift && there ? 0.5 + (0.5 * value) / this.high : null;
      box.setAttribute("fill", !there ? "url(#absent)" : tone === null ? shade(value) : signColour(tone));
      if (!text) continue;
      text.textContent = there ? digits(value, 2) : "";
      const dark =
        tone === null ? (settings.stretch ? Math.sqrt(Math.max(0, value)) : value) > 0.42 : Math.abs(tone - 0.5) > 0.36;
      text.style.fill = dark ? "#fff" : "#1b1f24";
    }
  }
};
