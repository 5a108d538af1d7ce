// What every page needs: fresh relative times, copy buttons, menus, dialogs, typed confirmations, htmx errors.
import { ago } from "./figures.js";

function freshTimes() {
  const now = Date.now();
  for (const el of document.querySelectorAll("time[data-ago]")) {
    const text = ago(Date.parse(el.dateTime), now);
    if (el.textContent !== text) el.textContent = text;
  }
}
setInterval(freshTimes, 15000);

async function copy(button) {
  const source = button.dataset.copy ? document.querySelector(button.dataset.copy) : button.parentElement.querySelector("pre, code, .copied");
  await navigator.clipboard.writeText(source.textContent.trim());
  button.dataset.copied = "";
  announce("Copied.");
  setTimeout(() => delete button.dataset.copied, 1400);
}

// Says something to screen readers without showing it.
export function announce(text) {
  let el = document.getElementById("announce");
  if (!el) {
    el = document.createElement("div");
    el.id = "announce";
    el.className = "sr";
    el.setAttribute("role", "status");
    document.body.append(el);
  }
  el.textContent = text;
}

// A sentence at the top of the page, as the server's own messages look.
export function flash(text, kind = "bad") {
  const note = document.createElement("div");
  note.className = `note ${kind}`;
  const inner = document.createElement("div");
  const p = document.createElement("p");
  p.textContent = text;
  inner.append(p);
  note.append(inner);
  document.getElementById("flash")?.append(note);
  note.scrollIntoView({ block: "nearest" });
}

// Menus are popovers; they open beside the button that opened them and stay inside the window.
function place(menu) {
  const button = document.querySelector(`[popovertarget="${menu.id}"]:not([hidden])`);
  const at = button.getBoundingClientRect();
  const box = menu.getBoundingClientRect();
  const left = menu.dataset.anchor === "end" ? at.right - box.width : at.left;
  const below = at.bottom + 6;
  const fits = below + box.height < innerHeight - 8 && menu.dataset.anchor !== "above";
  menu.style.left = `${Math.max(12, Math.min(left, innerWidth - box.width - 12))}px`;
  menu.style.top = `${fits ? below : Math.max(8, at.top - box.height - 6)}px`;
}

document.addEventListener("toggle", (event) => {
  if (event.target.matches?.("[popover][data-anchor]") && event.newState === "open") place(event.target);
}, true);

document.addEventListener("click", (event) => {
  const el = event.target.closest("[data-copy], [data-dismiss], [data-dialog], [data-close], [data-back]");
  if (!el) return;
  if ("copy" in el.dataset) copy(el);
  else if ("dismiss" in el.dataset) el.closest(".note").remove();
  else if ("close" in el.dataset) el.closest("dialog").close();
  else if ("back" in el.dataset) { event.preventDefault(); history.length > 1 ? history.back() : location.assign("/"); }
  else { event.preventDefault(); document.querySelector(el.dataset.dialog).showModal(); }
});

// A click on the backdrop closes a dialog.
document.addEventListener("mousedown", (event) => {
  if (event.target.matches?.("dialog.box")) event.target.close();
});

// <input data-must-be="name"> keeps the form's button disabled until the name is typed.
document.addEventListener("input", (event) => {
  const wanted = event.target.dataset?.mustBe;
  if (wanted === undefined) return;
  event.target.form.querySelector("[type=submit]").disabled = event.target.value.trim() !== wanted;
});

document.addEventListener("change", (event) => {
  if (event.target.matches?.("[data-autosubmit]")) event.target.form.requestSubmit();
});

const asksAgain = (event) => event.detail.elt.getAttribute("hx-trigger")?.includes("changed-"); // by itself, see events.js

document.addEventListener("htmx:responseError", (event) => {
  const { xhr } = event.detail;
  if (xhr.status === 401) location.reload();
  else if (xhr.status >= 500 && asksAgain(event)) return;
  else flash(`The portal answered ${xhr.status}. Nothing was changed; try again or reload the page.`);
});
document.addEventListener("htmx:sendError", (event) => asksAgain(event) || flash("The portal cannot be reached. It may be starting anew; try again in a few seconds."));
document.addEventListener("htmx:afterSettle", (event) => {
  freshTimes();
  for (const dialog of event.target.querySelectorAll?.("dialog[data-open]") ?? []) if (!dialog.open) dialog.showModal();
  if (event.target.matches?.("dialog[data-open]") && !event.target.open) event.target.showModal();
});

// The tab one is on is in view, however narrow the screen.
for (const tab of document.querySelectorAll(".tabs [aria-current]")) tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.offsetLeft - 60;

// "/" goes to the first search field, as in most tools.
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, textarea, select")) return;
  const field = document.querySelector("[data-search]");
  if (field) { event.preventDefault(); field.focus(); }
});

// Coming back to a tab: parts that ask for it look again.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") document.body.dispatchEvent(new CustomEvent("seen", { bubbles: true }));
});

// <input data-filter=".rows > a"> shows the rows whose data-words have what is typed.
document.addEventListener("input", (event) => {
  const rows = event.target.dataset?.filter;
  if (!rows) return;
  const words = event.target.value.trim().toLowerCase();
  for (const row of document.querySelectorAll(rows)) row.hidden = !row.dataset.words.includes(words);
});
