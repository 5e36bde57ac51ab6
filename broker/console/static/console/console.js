// Everything the console's pages do beyond links and forms. No inline scripts anywhere.
"use strict";

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Charts: the figure stands in the page as JSON; colours follow the page's theme.
function drawCharts() {
  if (!window.Plotly) return;
  const ink = getComputedStyle(document.documentElement);
  const words = ink.getPropertyValue("--chart-ink").trim(), line = ink.getPropertyValue("--chart-line").trim();
  for (const box of all(".drawn")) {
    const { data, layout } = JSON.parse(document.getElementById(box.dataset.figure).textContent);
    const axis = { gridcolor: line, linecolor: line, tickcolor: line };
    layout.font = { color: words, family: "Inter, sans-serif", size: 12 };
    layout.xaxis = { ...layout.xaxis, ...axis };
    layout.yaxis = { ...layout.yaxis, ...axis };
    window.Plotly.react(box, data, layout, { displayModeBar: false, displaylogo: false, responsive: true });
  }
}

// Counting down to a moment that the page names.
function countDown() {
  for (const place of all("[data-until]")) {
    const left = Math.round((new Date(place.dataset.until) - Date.now()) / 1000);
    const words = left > 90 ? `in ${Math.floor(left / 60)} min ${left % 60} s` : left >= 0 ? `in ${left} s` : "closing";
    if (place.textContent !== words) place.textContent = words;
  }
}

function showTails(root) {
  for (const log of all("[data-tail]", root)) log.scrollTop = log.scrollHeight;
}

function announce(words) {
  const place = one("#live");
  if (place && words && place.textContent !== words) place.textContent = words;
}

// Live fragments: swap only what changed, keep the last good content, say since when it is old.
const last = new WeakMap();
function onBeforeSwap(event) {
  const { target, serverResponse } = event.detail;
  if (last.get(target) === serverResponse) event.detail.shouldSwap = false;
  last.set(target, serverResponse);
}

function keepOpen(event) {
  const open = all("details", event.detail.target).map((d) => d.open);
  const tails = all("[data-tail]", event.detail.target).map((l) => [l.scrollTop, l.scrollHeight - l.scrollTop - l.clientHeight < 40]);
  event.detail.target._kept = { open, tails };
}

function onSettled(event) {
  const target = event.detail.target, kept = target._kept;
  if (!kept) return;
  all("details", target).forEach((d, i) => { if (kept.open[i]) d.open = true; });
  all("[data-tail]", target).forEach((log, i) => {
    const [top, atEnd] = kept.tails[i] || [0, true];
    log.scrollTop = atEnd ? log.scrollHeight : top;
  });
  countDown();
  announce(one("[data-announce]", target)?.dataset.announce);
}

function onAnswer(event) {
  const now = one("#now");
  if (event.detail.successful) {
    if (event.target === now) { now.classList.remove("stale"); one(".asof")?.remove(); now._good = new Date(); }
    return;
  }
  const dot = one("#pulse");
  if (dot) dot.innerHTML = '<span class="dot reconnecting" role="status"><i></i>reconnecting</span>';
  if (dot) last.delete(dot);
  if (event.target !== now || now.classList.contains("stale")) return;
  now.classList.add("stale");
  const note = document.createElement("p");
  note.className = "asof";
  note.setAttribute("role", "status");
  const good = now._good || new Date(performance.timeOrigin);
  note.textContent = `As of ${good.toISOString().slice(11, 19)} UTC: the broker does not answer; trying again.`;
  now.before(note);
}

// A thin bar, and only when an answer takes longer than 400 ms.
function onSlow(event) {
  const target = event.target;
  target._slow = setTimeout(() => target.classList?.add("slow"), 400);
}
function onDone(event) {
  clearTimeout(event.target._slow);
  event.target.classList?.remove("slow");
}

async function copyFrom(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    const range = document.createRange();
    range.selectNodeContents(button.previousElementSibling);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    announce("Selected; press Ctrl C to copy.");
    return;
  }
  one("span", button).textContent = "check";
  announce("Copied.");
  setTimeout(() => { one("span", button).textContent = "content_copy"; }, 1500);
}

// Keyboard: / searches, g and a letter goes, ? helps.
let goes = false;
function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
  if (goes) {
    goes = false;
    one(`[data-go="${CSS.escape(event.key)}"]`)?.click();
    return;
  }
  if (event.key === "g") { goes = true; setTimeout(() => { goes = false; }, 1200); }
  if (event.key === "?") one("#keys")?.showModal();
  if (event.key === "/") {
    const field = one("[data-search]") || one("#nav-filter");
    if (field) { event.preventDefault(); field.focus(); }
  }
}

document.addEventListener("DOMContentLoaded", () => {
  if (!one(".console")) return;
  document.body.addEventListener("htmx:beforeSwap", onBeforeSwap);
  document.body.addEventListener("htmx:beforeSwap", keepOpen);
  document.body.addEventListener("htmx:afterSettle", onSettled);
  document.body.addEventListener("htmx:beforeRequest", onSlow);
  document.body.addEventListener("htmx:afterRequest", onDone);
  document.body.addEventListener("htmx:afterRequest", onAnswer);
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", (e) => { const b = e.target.closest("[data-copy]"); if (b) copyFrom(b); });
  document.addEventListener("submit", (e) => { // a second press of the button does nothing
    const button = e.submitter;
    if (e.target.method === "post" && button) setTimeout(() => { button.disabled = true; });
  });
  new MutationObserver(drawCharts).observe(document.documentElement, { attributeFilter: ["class"] });
  setInterval(countDown, 1000);
  countDown(); drawCharts(); showTails(document);
});
