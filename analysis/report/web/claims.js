// The paper's three claims, and what was found of each.

const overview = {
  absent: () => !data.claims.length,
  draw(figure) {
    const sign = {yes: "\u25cf", part: "\u25d0", no: "\u25cb", open: "\u2013"};
    const article = (claim, i) => html("article", {class: `claim ${claim.tone}`}, html("h3", {}, `Claim ${i + 1}`),
      html("p", {class: "asserted"}, claim.claim),
      html("p", {class: "verdict"}, html("span", {"aria-hidden": "true"}, sign[claim.tone]),
        html("span", {class: "words"}, claim.verdict)),
      html("ul", {}, ...claim.evidence.map((text) => html("li", {}, text))));
    figure.replaceChildren(html("div", {class: "claims"}, ...data.claims.map(article)),
      html("figcaption", {},
        "Claims 1 to 3, in italics, are those of \u201cWhen Does Routing Become Interpretable? Causal Probes on Block " +
          "Attention Residuals\u201d (arXiv 2606.13168). Below each stands what was found here, at the last " +
          "probed step. Brackets hold 95\u00a0% intervals. \u25cf all of it was found, \u25d0 a part of it, " +
          "\u25cb none of it, \u2013 not decided. ",
        data.pooled_text));
  },
  update() {}
};
