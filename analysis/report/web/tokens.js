// Text, coloured by how much weight a read puts on a source at each token.

const tokens = {
  absent: () => !data.text,
  sequence: 0,
  at: null,

  draw(figure) {
    if (!this.weights) {
      const raw = atob(data.text.weights);
      this.weights = Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
      // The read and the family whose weight varies most say most.
      [this.read, this.source] = this.liveliest();
    }
    const label = "text; arrow keys go from token to token";
    this.block = html("div", {class: "text", tabindex: 0, role: "group", "aria-label": label});
    this.side = html("div", {class: "aside"});
    this.bar = html("span", {class: "key"});
    this.text = html("span");
    figure.replaceChildren(html("div", {class: "tools"}, ...this.selects(), this.bar),
      html("div", {class: "reading"}, this.block, this.side), caption("How each token is routed.", this.text));
    this.block.addEventListener("pointerover", (event) => {
      if (event.target.dataset.at !== undefined) this.choose(Number(event.target.dataset.at));
    });
    this.block.addEventListener("keydown", (event) => {
      const move = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10}[event.key];
      if (!move) return;
      event.preventDefault();
      this.choose(Math.min(Math.max((this.at ?? -1) + move, 0), data.text.positions - 1));
    });
    this.grid();
  },

  selects() {
    const set = (change) => (value) => {
      change(value);
      this.update();
    };
    const sequences = data.text.tokens.map((_, i) => [String(i), `${i + 1} of ${data.text.of_sequences}`]);
    const readNames = reads.name.map((name, read) => [String(read), name]);
    const setSequence = set((value) => {
      this.sequence = Number(value);
      this.at = null;
    });
    const setRead = set((value) => {
      this.read = Number(value);
    });
    const setSource = set((value) => {
      this.source = value;
    });
    return [
      select("sequence", sequences, String(this.sequence), setSequence),
      select("read", readNames, String(this.read), setRead), select("weight on", this.choices(), this.source, setSource)
    ];
  },

  choices() {
    const name = (family) => (family === "history" ? "history (all blocks)" : family);
    return [
      ...families.map((family) => [family, name(family)]),
      ...sources.slice(1, -1).map((source) => [source, sourceName(source)])
    ];
  },

  columns: (source) => (source === "history" ? sources.map((_, c) => c).slice(1, -1) : [sources.indexOf(source)]),
  weight(read, position, column, sequence = this.sequence) {
    const value =
      this.weights[((sequence * reads.name.length + read) * data.text.positions + position) * sources.length + column];
    return value === 255 ? null : value / 254;
  },
  /// The weight on a source or family; null where the read has none of it.
  on(source, read, position, sequence = this.sequence) {
    const there = this.columns(source).map((column) => this.weight(read, position, column, sequence)).filter(known);
    return there.length ? there.reduce((sum, value) => sum + value, 0) : null;
  },
  liveliest() {
    let best = [0, "current"], most = -1;
    reads.name.forEach((_, read) => families.forEach((family) => {
      const shown = Array.from({length: data.text.positions}, (__, position) => this.on(family, read, position, 0));
      if (shown.some((value) => !known(value))) return;
      const centre = shown.reduce((a, b) => a + b, 0) / shown.length,
            spread = shown.reduce((a, b) => a + (b - centre) ** 2, 0) / shown.length;
      if (spread > most) [best, most] = [[read, family], spread];
    }));
    return best;
  },
  update() {
    if (!this.block) return;
    const {text} = data;
    const shown = Array.from({length: text.positions}, (_, position) => this.on(this.source, this.read, position));
    const there = shown.filter(known);
    const low = Math.min(...there), high = Math.max(...there), span = high - low || 1;
    const colour = (share) => weightColour(0.04 + 0.8 * share);
    this.block.replaceChildren(...text.tokens[this.sequence].map((word, position) => {
      const share = known(shown[position]) ? (shown[position] - low) / span : null;
      const ink = share > 0.45 ? "#fff" : "#1b1f24";
      const style = share === null ? "" : `background:${colour(share)};color:${ink}`;
      const visible = word.replace(/\n/g, "\u21b5\n").replace(/\t/g, "\u21e5\t") || "\u2205";
      return html("span", {"data-at": position, style}, visible);
    }));
    const bar = svg("svg", {viewBox: "0 0 120 14", width: 120, height: 14}, colourBar(colour, 40, 120));
    const ends = [html("span", {}, digits(low, 3)), bar, html("span", {}, digits(high, 3))];
    this.bar.replaceChildren(...(there.length ? ends : [html("span", {}, "this read has no such source")]));
    this.text.textContent = this.explanation();
    this.choose(this.at ?? Math.max(0, shown.indexOf(high)));
  },

  explanation() {
    const {text} = data;
    const known_step = text.step >= 0;
    const when = known_step ? `at step ${grouped(text.step)}, the latest with weights of single tokens` : "from a dump";
    const cut =
      text.positions < text.of_positions ? ` The first ${text.positions} of ${text.of_positions} tokens.` : "";
    const words = {embedding: "the embedding", history: "all completed blocks", current: "the current state"};
    const which = words[this.source] || sourceName(this.source);
    return `Sequence ${this.sequence + 1} of ${text.of_sequences} (${text.origin}), ${when}: the weight that ` +
      `${reads.name[this.read]} puts on ${which}, token by token. Colours span the lowest and the highest weight of ` +
      `this sequence.${cut} \u21b5 marks a line feed. Beside it: all reads at the token under the pointer.` +
      ofRun(runs[0]);
  },

  /// The map beside the text: reads downwards, sources across.
  grid() {
    const names = reads.name.length, h = Math.max(5, Math.min(16, Math.floor(420 / names))), left = 62,
          w = Math.max(4, Math.min(28, Math.floor(190 / sources.length)));
    const drawing = canvas(left + w * sources.length + 4, names * h + 64, "routing of one token");
    drawing.style.width = left + w * sources.length + 4 + "px";
    this.boxes = [];
    const every = Math.ceil(11 / h), everySource = Math.ceil(12 / w);
    reads.name.forEach((name, read) => {
      if (read % every === 0)
        drawing.append(
          svg("text", {class: "tick", x: left - 6, y: 4 + (read + 0.5) * h + 4, "text-anchor": "end"}, name));
      sources.forEach((_, column) => {
        const box = svg("rect", {x: left + column * w + 0.5, y: 4 + read * h + 0.5, width: w - 1, height: h - 1});
        this.boxes.push({box, read, column});
        drawing.append(box);
      });
    });
    sources.forEach((source, column) => {
      if (column % everySource && column !== sources.length - 1) return;
      const x = left + (column + 0.5) * w + 4, y = names * h + 12;
      drawing.append(svg(
        "text", {class: "tick", x, y, "text-anchor": "end", transform: `rotate(-50 ${x} ${y})`}, sourceName(source)));
    });
    this.head = html("p", {class: "token"});
    this.side.replaceChildren(this.head, drawing);
  },
  choose(position) {
    const before = this.block.querySelector(".here"), now = this.block.children[position];
    if (before) before.classList.remove("here");
    if (!now) return;
    now.classList.add("here");
    this.at = position;
    for (const {box, read, column} of this.boxes) {
      const value = this.weight(read, position, column);
      box.setAttribute("fill", known(value) ? shade(value) : "#f1f3f5");
    }
    const value = this.on(this.source, this.read, position);
    this.head.replaceChildren(`token ${position}: `,
      html("code", {}, JSON.stringify(data.text.tokens[this.sequence][position])),
      known(value) ? ` \u2014 ${reads.name[this.read]} on ${this.source.replace("_", " ")} ${digits(value, 3)}` : "");
  },
};
