// The live log: follows, pauses when one scrolls up or asks for it, comes back after a break by the ids it has seen.
import { Socket } from "./socket.js";

const KEEP = 3000; // lines in the page; the record has all
const WAIT = 8000; // lines held while paused
const ESCAPES = /\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007]*\u0007?|[\u0000-\u0008\u000b-\u001f\u007f]/g;

const clock = (id) => {
  const at = new Date(Number(id.split("-")[0]));
  return `${at.toTimeString().slice(0, 8)}.${String(at.getMilliseconds()).padStart(3, "0")}`;
};

class Log {
  constructor(root) {
    this.root = root;
    this.box = root.querySelector(".log");
    this.names = JSON.parse(root.querySelector("script[type='application/json']")?.textContent || "{}");
    this.word = root.querySelector("[data-log-state]");
    this.button = root.querySelector("[data-log-pause]");
    this.find = root.querySelector("[data-log-find]");
    this.only = root.querySelector("[data-log-instance]");
    Object.assign(this, { seen: new Map(), floor: "", queue: [], held: [], paused: false, frame: 0, dropped: 0 });
    this.button?.addEventListener("click", () => this.pause(!this.paused));
    this.find?.addEventListener("input", () => this.filter());
    this.only?.addEventListener("change", () => this.filter());
    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.socket = new Socket(() => this.path(), { onmessage: (lines) => this.take(lines), onstate: (state) => this.say(state) });
  }

  path() {
    const after = [this.floor, ...[...this.seen].map(([name, id]) => `${name}@${id}`)].filter(Boolean).join(",");
    return this.root.dataset.log + (after ? `?after=${encodeURIComponent(after)}` : "");
  }

  say(state) {
    if (state === "unreadable") { this.seen.clear(); this.floor = ""; }
    this.state = state;
    const [word, tone] = state === "gone" ? ["the app is gone", "warn"] : state === "refused" ? ["not allowed", "bad"] : state === "lost" ? ["reconnecting", "warn"] : this.paused ? [this.held.length ? `paused, ${this.held.length} new` : "paused", "warn"] : ["following", "ok"];
    this.word.textContent = word;
    this.word.className = `tag ${tone}`;
  }

  take(lines) {
    if (!lines.length) return;
    this.floor ||= lines[0][0];
    for (const line of lines) if (line[1]) this.seen.set(line[1], line[0]);
    if (this.paused) {
      this.held.push(...lines);
      if (this.held.length > WAIT) { this.dropped += this.held.length - WAIT; this.held.splice(0, this.held.length - WAIT); }
      this.say(this.state);
      return;
    }
    this.queue.push(...lines);
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const lines = this.queue.splice(0);
    const cut = lines.length > KEEP ? lines.splice(0, lines.length - KEEP).length + this.dropped : this.dropped;
    this.dropped = 0;
    this.box.querySelector(".nolines")?.remove();
    const rows = lines.map((line) => this.row(line));
    if (cut) rows.unshift(this.gap(cut));
    this.box.append(...rows);
    for (let surplus = this.box.childElementCount - KEEP; surplus > 0; surplus -= 1) this.box.firstElementChild.remove();
    this.jump();
  }

  jump() {
    this.jumping = true;
    this.box.scrollTop = this.box.scrollHeight;
    requestAnimationFrame(() => { this.jumping = false; });
  }

  row([id, instance, tag, text]) {
    const row = document.createElement("div");
    const time = document.createElement("time");
    time.textContent = clock(id);
    time.title = new Date(Number(id.split("-")[0])).toISOString();
    const who = document.createElement("span");
    who.className = "who";
    who.textContent = tag === "m" ? "moorage" : this.name(instance);
    const words = document.createElement("span");
    words.textContent = text.replace(ESCAPES, "");
    words.className = tag === "m" ? "plat" : tag === "e" || tag === "E" ? "err" : "";
    row.append(time, who, words);
    row.dataset.who = instance;
    row.hidden = !this.shows(row);
    return row;
  }

  name(instance) {
    return this.names[instance] ?? instance.match(/([a-z0-9]+)-(\d+)(?:-[a-z0-9]+)?$/)?.slice(1, 3).join(".") ?? instance;
  }

  gap(count) {
    const row = document.createElement("div");
    row.className = "gap";
    row.textContent = `${count.toLocaleString("en")} lines are not shown here; the download has them.`;
    return row;
  }

  shows(row) {
    const words = this.find?.value.trim().toLowerCase();
    const only = this.only?.value;
    return (!words || row.lastElementChild.textContent.toLowerCase().includes(words)) && (!only || row.dataset.who === only || !row.dataset.who);
  }

  filter() {
    for (const row of this.box.children) if (row.lastElementChild) row.hidden = !this.shows(row);
    if (!this.paused) this.jump();
  }

  scrolled() {
    if (this.jumping) return;
    const away = this.box.scrollHeight - this.box.clientHeight - this.box.scrollTop;
    if (!this.paused && away > 60) this.pause(true);
    else if (this.paused && this.byScroll && away < 4) this.pause(false);
    this.byScroll = true;
  }

  pause(on) {
    this.paused = on;
    this.byScroll = false;
    this.button?.setAttribute("aria-pressed", String(on));
    this.button?.setAttribute("aria-label", on ? "Follow" : "Pause");
    const use = this.button?.querySelector("use");
    use?.setAttribute("href", use.getAttribute("href").replace(/#.*/, on ? "#play" : "#pause"));
    if (!on) {
      this.queue.push(...this.held.splice(0));
      this.draw();
    }
    this.say(this.state);
  }
}

for (const root of document.querySelectorAll("[data-log]")) root.log = new Log(root);
