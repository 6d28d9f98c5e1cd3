// Every page works without this script. The script keeps the scroll position while parts of a page change, searches
// while the user types, and adds keyboard shortcuts.
"use strict";
document.documentElement.classList.add("js");

let latest = 0;

// Fetch a page, and replace the parts of this page that `selectors` name with those of the fetched page. The server has
// escaped all text.
async function swap(url, selectors, how) {
  const turn = ++latest, parts = selectors.split(",");
  parts.forEach(part => document.querySelector(part)?.classList.add("busy"));
  let text;
  try {
    const answer = await fetch(url, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(answer.statusText);
    text = await answer.text();
  } catch {
    if (turn === latest) location.assign(url);
    return;
  }
  if (turn !== latest) return;
  const page = new DOMParser().parseFromString(text, "text/html");
  const focused = document.activeElement;
  for (const part of parts) {
    const old = document.querySelector(part), made = page.querySelector(part);
    if (!old || !made) { location.assign(url); return; }
    const top = old.scrollTop;
    const held = old.contains(focused) ? focused : null;
    const clone = document.importNode(made, true);
    old.replaceWith(clone);
    clone.scrollTop = top;
    if (held) again(clone, held);
  }
  document.title = page.title;
  if (how === "push") history.pushState({ swap: selectors }, "", url);
  else history.replaceState({ swap: selectors }, "", url);
}

// Give the keyboard focus back to the same element in the new part.
function again(part, held) {
  const href = held.getAttribute("href");
  const same = (held.id && part.querySelector("#" + CSS.escape(held.id))) || (href && [...part.querySelectorAll("a")].find(link => link.getAttribute("href") === href));
  const target = same || part.querySelector("[aria-current]") || part.querySelector("nav.pages a");
  if (target) target.focus({ preventScroll: true });
  else { part.tabIndex = -1; part.focus({ preventScroll: true }); }
}

document.addEventListener("click", event => {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (event.target.closest(".skip")) { event.preventDefault(); document.querySelector("#main").focus(); return; }
  const link = event.target.closest("a"), region = link && link.closest("[data-swap]");
  if (region) { event.preventDefault(); swap(link.getAttribute("href"), region.dataset.swap, "push"); return; }
  const chart = event.target.closest("[data-steps-chart] svg[data-steps]");
  if (chart) {
    const [first, last] = chart.dataset.steps.split(" ").map(Number), [left, right] = chart.dataset.ends.split(" ").map(Number);
    const box = chart.getBoundingClientRect(), share = ((event.clientX - box.left) / box.width - left) / (right - left);
    const slider = document.querySelector("[data-stepper] input");
    slider.value = Math.round(first + Math.min(1, Math.max(0, share)) * (last - first));
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  }
});

addEventListener("popstate", () => location.reload());

let waiting;
function live(form, pause) {
  clearTimeout(waiting);
  waiting = setTimeout(() => swap(form.getAttribute("action") + "?" + new URLSearchParams(new FormData(form)), form.dataset.live, "replace"), pause);
}
document.addEventListener("input", event => {
  const form = event.target.closest("[data-live]");
  if (form) live(form, event.target.tagName === "SELECT" ? 0 : 60);
  const stepper = event.target.closest("[data-stepper]");
  if (stepper) {
    clearTimeout(waiting);
    waiting = setTimeout(() => swap("/alignment?step=" + event.target.value, stepper.dataset.stepper, "replace"), 40);
  }
});
document.addEventListener("submit", event => {
  const form = event.target.closest("[data-live]");
  if (form) { event.preventDefault(); live(form, 0); }
});
// Links to the previous or next step also move the slider.
new MutationObserver(() => {
  const slider = document.querySelector("[data-stepper] input"), step = new URLSearchParams(location.search).get("step");
  if (slider && step && document.activeElement !== slider) slider.value = step;
}).observe(document.body, { childList: true, subtree: true });

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
  if (event.key === "/" && !(typing && document.activeElement.type !== "range")) {
    const find = document.querySelector("[data-find], #find");
    if (find) { event.preventDefault(); find.focus(); find.select(); }
    return;
  }
  if (event.key === "Escape" && typing) { document.activeElement.blur(); return; }
  const inFind = document.activeElement.matches("[data-find]");
  const list = document.activeElement.closest("[data-keys]") || (inFind && event.key === "ArrowDown" && document.querySelector("[data-keys]"));
  if (!list) return;
  const links = [...list.querySelectorAll("a")], at = links.indexOf(document.activeElement);
  const to = { ArrowDown: inFind ? 0 : at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
  if (to === undefined || !links.length) return;
  event.preventDefault();
  if (to < 0) document.querySelector("[data-find]")?.focus();
  else links[Math.min(to, links.length - 1)].focus();
});
