// Runs at the end of a copy of the page: uses it as a reader would, and leaves what it saw as JSON in the document, for
// browser_test.cpp. window.browserErrors holds the script errors since the page was opened.

const seen = {
  sections: [],
  claims: [],
  keyboard: [],
  views: [],
  navigation: [],
};

const key = (element, name) => element.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
const tipText = () => {
  const tip = document.getElementById("tip");
  return getComputedStyle(tip).display === "none" ? null : tip.textContent;
};
/// Things that are drawn: a figure without any is empty.
const marksOf = (drawing) =>
  drawing.querySelectorAll("path[d]:not([d='']), circle:not([visibility]), rect:not(.catcher), polygon").length;

const wrong = /undefined|NaN|\[object|Infinity/;
/// Something was written that is no value.
function isBroken(section) {
  const drawn = [...section.querySelectorAll("svg *")].flatMap((element) => [...element.attributes]);
  return wrong.test(section.textContent) || drawn.some((attribute) => wrong.test(attribute.value));
}

function readSection(section) {
  return {
    id: section.id,
    hidden: section.hidden,
    text: section.textContent.length,
    drawings: [...section.querySelectorAll("figure > svg, .beside svg")].map(marksOf),
    tables: [...section.querySelectorAll("table")].map((table) => table.querySelectorAll("tbody tr").length),
    captions: section.querySelectorAll("figcaption").length,
    broken: isBroken(section)
  };
}
const readSections = () => [...document.querySelectorAll("main > section")].map(readSection);

/// Every figure gives a value for an arrow key, and hides it for Escape.
function useKeyboard() {
  for (const catcher of document.querySelectorAll("svg .catcher[tabindex]")) {
    const section = catcher.closest("section");
    if (section.hidden) continue;
    catcher.focus();
    key(catcher, "ArrowRight");
    const first = tipText();
    key(catcher, "ArrowRight");
    const second = tipText();
    key(catcher, "Escape");
    seen.keyboard.push(
      {section: section.id, focused: document.activeElement === catcher, first, second, after: tipText()});
  }
}

function useText() {
  const block = document.querySelector(".text");
  if (!block) return null;
  const at = () => [...block.children].findIndex((token) => token.classList.contains("here"));
  key(block, "ArrowLeft");
  for (let i = 0; i < 20; ++i) key(block, "ArrowLeft");
  const begin = at();
  key(block, "ArrowRight");
  return {begin, then: at(), tokens: block.children.length};
}

function useNavigation() {
  for (const link of document.querySelectorAll("nav a")) {
    const section = document.getElementById(link.dataset.to);
    if (!link.hidden) key(link, "Enter");
    const focused = document.activeElement === section.querySelector("h2");
    seen.navigation.push({to: link.dataset.to, shown: !link.hidden, section: !section.hidden, focused});
  }
}

function useSlider() {
  const slider = document.querySelector("#step input");
  const output = document.querySelector("#step output");
  const last = output.textContent;
  slider.value = 0;
  slider.dispatchEvent(new Event("input"));
  const first = output.textContent;
  slider.value = slider.max;
  slider.dispatchEvent(new Event("input"));
  return {last, first, again: output.textContent};
}

/// The first column of numbers under a heading, before and after a click on it.
function useSorting() {
  const button = [...document.querySelectorAll("#slices th button")].find((one) => one.textContent === "mass");
  if (!button) return null;
  const column =
    () => [...document.querySelectorAll("#slices table")].at(0).querySelectorAll("tbody tr td:nth-child(2)");
  const read = () => [...column()].map((cell) => Number(cell.textContent));
  button.click();
  return read();
}

function choose(label, value) {
  const box = [...document.querySelectorAll("#step label")].find((one) => one.firstChild.textContent === label);
  if (!box) return null;
  const chosen = box.querySelector("select");
  if (value !== undefined) {
    chosen.value = value;
    chosen.dispatchEvent(new Event("change"));
  }
  return [...chosen.options].map((option) => option.value);
}

/// The masses of the slices as the last table shows them, in its order.
const shownMasses = () => {
  const rows = [...document.querySelectorAll("#slices table")].at(-1).querySelectorAll("tbody tr");
  return [...rows].map((row) => [row.querySelector("th").textContent, row.querySelectorAll("td")[1].textContent]);
};

/// The same of the free masses.
const shownFreeMasses = () => {
  const rows = [...document.querySelectorAll("#slices table")].at(-1).querySelectorAll("tbody tr");
  return [...rows].map((row) => [row.querySelector("th").textContent, row.querySelectorAll("td")[2].textContent]);
};

function useViews() {
  for (const value of choose("runs") || []) {
    choose("runs", value);
    const circuits = document.querySelector("#circuits").textContent;
    const masses = document.querySelector("#slices table") ? shownMasses() : [];
    seen.views.push({value, masses, sections: readSections(), circuits});
  }
  if (seen.views.length) choose("runs", "0");
  for (const value of choose("ablation") || []) choose("ablation", value);
}

/// The section of circuits with its last measurement, which is a task.
function useCircuitOfTask() {
  const box = () => document.querySelector("#circuits label select");
  if (!box()) return null;
  const pick = (value) => {
    const chosen = box();
    chosen.value = value;
    chosen.dispatchEvent(new Event("change"));
  };
  pick(String(box().options.length - 1));
  const section = document.getElementById("circuits"), out = {...readSection(section), words: section.textContent};
  pick("0");
  return out;
}

/// The page with each kind of mass, and as lift.
function useMasses() {
  const lift = [...document.querySelectorAll("#step label")].find((one) => one.textContent === "lift");
  const out = [];
  for (const value of choose("mass") || []) {
    for (const lifted of [false, true]) {
      choose("mass", value);
      if (lifted) lift.querySelector("input").click();
      const text = (id) => document.getElementById(id).textContent;
      out.push({
        value,
        lifted,
        sections: readSections(),
        masses: document.querySelector("#slices table") ? shownMasses() : [],
        plane: text("plane"),
        routing: text("routing"),
        emergence: text("emergence"),
        slices: text("slices")
      });
      if (lifted) lift.querySelector("input").click();
    }
  }
  choose("mass", "alpha");
  return out;
}

function report() {
  seen.sections = readSections();
  seen.claims = [...document.querySelectorAll(".claim")].map((claim) => ({
    claim: claim.querySelector(".asserted").textContent,
    verdict: claim.querySelector(".words").textContent,
    evidence: [...claim.querySelectorAll("li")].map((item) => item.textContent)
  }));
  seen.title = document.title;
  seen.heading = document.querySelector("h1").textContent;
  seen.facts = document.querySelectorAll("#facts div").length;
  if (document.querySelector("#slices table")) seen.free_masses = shownFreeMasses();
  seen.plane = (document.querySelector("#plane figcaption") || {textContent: ""}).textContent;
  seen.ways = document.querySelector("#ways").textContent;
  seen.coalitions = document.querySelector("#coalitions").textContent;
  seen.circuits = document.querySelector("#circuits").textContent;
  seen.methods = document.querySelectorAll("#methods li").length;
  useKeyboard();
  seen.text = useText();
  useNavigation();
  seen.slider = useSlider();
  seen.sorted = useSorting();
  seen.circuit_of_task = useCircuitOfTask();
  useViews();
  seen.masses = useMasses();
  window.dispatchEvent(new Event("beforeprint"));
  seen.printed = readSections();
  window.dispatchEvent(new Event("afterprint"));
  for (const box of document.querySelectorAll("input[type=checkbox]")) box.click();
  seen.width = window.innerWidth;
  seen.wide = document.documentElement.scrollWidth;
}

try {
  report();
} catch (error) {
  window.browserErrors.push(`browser.js: ${error.stack}`);
}
seen.errors = window.browserErrors;
const result = document.createElement("pre");
result.id = "seen";
// ASCII without markup, so that it is the same in a dump of the document.
result.textContent = JSON.stringify(seen).replace(
  /[<>&\u0080-\uffff]/g, (letter) => "\\u" + letter.charCodeAt(0).toString(16).padStart(4, "0"));
document.body.append(result);
