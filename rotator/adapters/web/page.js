// Keeps the page fresh without loading it anew: focus, scroll and what is being typed stay as they are.
// Without this script the page refreshes itself by a <meta> element, and the search by its button.
"use strict";

const stale = document.getElementById("stale");
let timer = 0;
let underWay = null;

function morph(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.hasAttribute("data-keep")) return;
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const known = new Map([...old.children].filter((one) => one.id).map((one) => [one.id, one]));
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    let match = next.id ? known.get(next.id) : undefined;
    if (!next.id && at && !at.id && at.nodeName === next.nodeName) match = at;
    if (match === undefined) {
      old.insertBefore(document.importNode(next, true), at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    morph(match, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function show(fresh) {
  const focused = document.activeElement;
  document.title = fresh.title;
  morph(document.body, fresh.body);
  if (focused === document.activeElement || focused === document.body) return;
  (focused.isConnected ? focused : document.getElementById("main")).focus({ preventScroll: true });
}

async function load(address) {
  underWay?.abort();
  const own = (underWay = new AbortController());
  clearTimeout(timer);
  const patience = setTimeout(() => own.abort(), 30000);
  let problem = "";
  try {
    const answer = await fetch(address, { cache: "no-store", signal: own.signal });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (fresh.body.hasAttribute("data-seconds")) show(fresh);
    else problem = `it answered ${answer.status}`;
  } catch {
    problem = "it does not answer";
  }
  clearTimeout(patience);
  if (own !== underWay) return;
  if (problem === "") stale.hidden = true;
  else if (stale.hidden) {
    const since = document.querySelector(".fresh time").textContent;
    stale.textContent = `rotator cannot be reached: ${problem}. This is how things stood at ${since}.`;
    stale.hidden = false;
  }
  later();
}

function later() {
  clearTimeout(timer);
  const seconds = Number(document.body.dataset.seconds);
  if (seconds > 0) timer = setTimeout(() => (document.hidden ? later() : load(location.href)), seconds * 1000);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && Number(document.body.dataset.seconds) > 0) load(location.href);
});

let typing = 0;
document.addEventListener("input", (event) => {
  const form = event.target.form;
  if (!form?.hasAttribute("data-live")) return;
  clearTimeout(typing);
  typing = setTimeout(() => {
    const asked = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
    history.replaceState(null, "", `${form.action.split("?")[0]}?${asked}`);
    load(location.href);
  }, 250);
});

later();
