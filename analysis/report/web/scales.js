// What every figure is made of: elements, numbers as text, scales and colours. Text always enters the page as text,
// never as markup.
"use strict";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes))
    if (value !== undefined) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}
const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const html = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);

// ---- numbers ----

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
/// With a true minus sign, which what rounds to zero does not have; an en dash for what is not there.
function digits(value, places) {
  if (!known(value)) return "\u2013";
  const text = value.toFixed(places);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
}
const signed = (value, places) =>
  (known(value) && Number(value.toFixed(places)) > 0 ? "+" : "") + digits(value, places);
const grouped = (value) => Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
function metric(value) {
  for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= size) return Number((value / size).toPrecision(3)) + "\u202f" + letter;
  }
  return String(Number(value.toPrecision(3)));
}
function plain(value) {
  if (value === 0) return "0";
  const text =
    Math.abs(value) < 1e-3 ? value.toExponential(0).replace("e-", "e\u2212") : String(Number(value.toPrecision(6)));
  return text.replace(/^-/, "\u2212");
}

// ---- scales: functions from data to pixels, with `ticks` and `format` ----

function linearScale([low, high], [start, end], count = 5, format = plain) {
  if (high <= low) high = low + 1;
  const scale = (value) => start + ((value - low) / (high - low)) * (end - start);
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const stride = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  scale.ticks = [];
  for (let k = Math.ceil(low / stride - 1e-9); k * stride <= high + 1e-9 * stride; ++k)
    scale.ticks.push(Number((k * stride).toPrecision(12)));
  scale.format = format;
  scale.domain = [low, high];
  return scale;
}

/// Position by log(1 + value / unit), so that the beginning, at 0, has its place.
function logScale(high, unit, [start, end], format = metric) {
  if (high <= 0) high = unit;
  const full = Math.log1p(high / unit);
  const scale = (value) => start + (Math.log1p(value / unit) / full) * (end - start);
  scale.format = format;
  scale.domain = [0, high];
  // Round numbers, the rounder first, as far as they keep their distance.
  const kept = [0];
  for (const steps of [[1], [2, 5]]) {
    for (let power = 10 ** Math.floor(Math.log10(unit)); power <= high; power *= 10) {
      for (const step of steps) {
        const value = step * power;
        if (value <= high && value >= unit * 0.99 && kept.every((other) => Math.abs(scale(other) - scale(value)) > 44))
          kept.push(value);
      }
    }
  }
  scale.ticks = kept.sort((a, b) => a - b);
  return scale;
}

/// Linear within +-linear, logarithmic beyond.
function symlogScale([low, high], linear, [start, end]) {
  const bend = (value) => Math.asinh(value / linear);
  const scale = (value) => start + ((bend(value) - bend(low)) / (bend(high) - bend(low))) * (end - start);
  scale.domain = [low, high];
  scale.format = plain;
  const kept = [0];
  for (let power = 10 ** Math.ceil(Math.log10(high - low)); power >= linear * 0.99; power /= 10) {
    for (const sign of [1, -1]) {
      const value = sign * Number(power.toPrecision(3));
      if (value >= low && value <= high && kept.every((other) => Math.abs(scale(other) - scale(value)) > 20))
        kept.push(value);
    }
  }
  scale.ticks = kept.sort((a, b) => a - b);
  return scale;
}

// ---- colours ----

function ramp(stops) {
  const rgb = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  return (share) => {
    const position = Math.min(Math.max(share, 0), 1) * (rgb.length - 1);
    const index = Math.min(Math.floor(position), rgb.length - 2);
    const mixed = rgb[index].map((low, c) => Math.round(low + (rgb[index + 1][c] - low) * (position - index)));
    return `rgb(${mixed.join(",")})`;
  };
}
/// Weights: even steps of lightness, light to dark, legible in grey.
const weightColour =
  ramp(["#f3faf3", "#d3efdb", "#a0dfb9", "#5bcaad", "#38aaac", "#348aa6", "#366a9f", "#40498e", "#382a54", "#1e111f"]);
/// Depth: dark to light, first layer to last.
const depthColour = ramp(["#35145f", "#34558b", "#1f8a8a", "#67ad4b", "#d9a400"]);
/// Effects: blue below zero, white, red above.
const signColour = ramp(["#08519c", "#3f8fc4", "#a6cde3", "#ffffff", "#f6b394", "#d6604d", "#8f1529"]);
/// Okabe and Ito's palette.
const familyColour = {
  embedding: "#e69f00",
  history: "#0072b2",
  current: "#009e73"
};
