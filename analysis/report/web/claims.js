// The overview: the paper's three claims, and what this run says of each.

const overview = {
  unnumbered: true,
  absent: () => !data.claims.length,
  draw(figure) {
    const said = { yes: "\u25cf", part: "\u25d0", no: "\u25cb", open: "\u2013" };
    figure.replaceChildren(
      html("div", { class: "claims" }, ...data.claims.map((claim, i) => html("article", { class: `claim ${claim.tone}` },
        html("h3", {}, `Claim ${i + 1}`),
        html("p", { class: "asserted" }, claim.claim),
        html("p", { class: "verdict" }, html("span", { "aria-hidden": "true" }, said[claim.tone]), claim.verdict),
        html("ul", {}, ...claim.evidence.map((text) => html("li", {}, text)))))),
      html("figcaption", {}, "Claims in italics are those of \u201cWhen Does Routing Become Interpretable? Causal Probes on Block Attention Residuals\u201d (arXiv 2606.13168); below each is what this run says, at its last probed step. Brackets hold 95\u00a0% intervals. \u25cf all of it was found, \u25d0 part of it, \u25cb none of it. ", data.pooled));
  },
  update() {},
};
