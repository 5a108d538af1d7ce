// Hints from the platform ("app 7 changed") become DOM events on <body>; htmx parts that listen load themselves anew.
import { Socket } from "./socket.js";
import { duration } from "./figures.js";

const last = new Map();

// A part that is on its way was made before this hint, and takes its element and what waits there along: the hint comes after it.
const loading = () => document.querySelector('.htmx-request[hx-trigger^="changed"]') !== null;

function tell(what) {
  const wait = Math.max((last.get(what) ?? 0) + 120 - Date.now(), loading() ? 50 : 0);
  if (wait > 0) {
    if (!last.has(`${what}?`)) last.set(`${what}?`, setTimeout(() => { last.delete(`${what}?`); tell(what); }, wait));
    return;
  }
  last.set(what, Date.now());
  document.body.dispatchEvent(new CustomEvent(`changed-${what}`, { bubbles: true }));
  document.body.dispatchEvent(new CustomEvent("changed", { bubbles: true, detail: what }));
}

function listen(root) {
  let lost = false;
  new Socket(() => root.dataset.events, {
    onmessage: (message) => {
      if (message.what === "deleted") return leave(root);
      if (!message.gist) return tell(message.what ?? "deployment");
      // The state as it is. The page was made a moment ago, and what has changed since then no hint will tell.
      for (const [what, now] of Object.entries(message.gist)) if ((known(root, what) ?? now) !== now) tell(what);
    },
    // What happened while the line was down is not known: look at everything once.
    onstate: (now) => {
      if (now === "open" && lost) for (const what of ["deployment", "instances", "limits"]) tell(what);
      lost = now === "lost";
      if (now === "gone") leave(root);
    },
  });
}

// The app is gone, and so is what its pages could show; a list of apps loads itself without it.
function leave(root) {
  if (root.dataset.gone) location.replace(root.dataset.gone);
  else tell("deleted");
}

const known = (root, what) => root.getAttribute(`data-known-${what}`);

function begin() {
  for (const root of document.querySelectorAll("[data-events]")) listen(root);
}

// Not before htmx listens: it begins with this event, which waits for every script of the page, and a hint before it would be lost.
if (document.readyState === "complete") begin();
else document.addEventListener("DOMContentLoaded", begin);

// A part that could not be loaded (the portal restarts, the line was down) still shows what was: it asks again.
function again(event) {
  const what = event.detail.elt.getAttribute("hx-trigger")?.match(/changed-(\w+)/)?.[1];
  const status = event.detail.xhr?.status ?? 0;
  if (what && !(status >= 400 && status < 500)) setTimeout(() => tell(what), 2000);
}
for (const failure of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) document.addEventListener(failure, again);

// The step under way counts its own seconds.
setInterval(() => {
  for (const el of document.querySelectorAll("[data-since]")) el.textContent = duration((Date.now() - Date.parse(el.dataset.since)) / 1000);
}, 100);
