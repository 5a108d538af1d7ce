// Uploads an image archive in resumable chunks (tus), then shows what the image says. Alpine's CSP build draws it.
import Alpine from "../vendor/alpine/alpine-csp.esm.min.js";
import { withoutKnown } from "./archive.js";
import { duration, size } from "./figures.js";

const CHUNK = 8 * 1024 * 1024;
const RATE_WINDOW = 6000; // ms over which the rate is averaged
const csrf = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];

Alpine.data("uploader", () => ({
  // idle, making (the app), looking (what is here already), sending, paused, reading (the server checks the image), done, failed
  phase: "idle",
  over: false,
  file: null,
  payload: null, // what is sent of the file
  spared: 0,
  sent: 0,
  samples: [],
  trouble: "",
  app: "",
  waiting: null,
  name: "",
  domain: "",

  init() {
    this.app = this.$root.dataset.app;
    this.domain = this.$root.dataset.domain;
    this.name = document.getElementById("id_slug")?.value ?? "";
    this.unfinished();
    // Beside its place a dropped file would be opened by the browser in the page's stead.
    for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => this.beside(event));
    addEventListener("beforeunload", (event) => { if (this.phase === "sending") event.preventDefault(); });
  },

  get address() { return `${this.name || "your-app"}${this.domain}`; },
  get idle() { return this.phase === "idle" || this.phase === "failed"; },
  get busy() { return !this.idle && this.phase !== "done"; },
  get sending() { return this.phase === "sending"; },
  get paused() { return this.phase === "paused"; },
  get canPause() { return this.sending || this.paused; },
  get pauseWord() { return this.paused ? "Resume" : "Pause"; },
  get fileName() { return this.file?.name ?? ""; },
  get fileSize() { return size(this.file?.size ?? 0); },
  get whole() { return this.payload?.size ?? this.file?.size ?? 0; },
  get share() { return this.whole ? Math.min(100, (100 * this.sent) / this.whole) : 0; },
  get here() { return this.spared ? `, ${size(this.spared)} were here already` : ""; },
  get percent() { return `${this.share.toFixed(1)}%`; },
  get label() { return `${Math.floor(this.share)} % uploaded`; },
  get locked() { return this.app !== ""; },
  get resumable() { return this.waiting !== null && this.idle; },
  get resumeWords() { return this.waiting ? `${this.waiting.name} was uploaded to ${Math.floor((100 * this.waiting.sent) / this.waiting.size)} % (${size(this.waiting.sent)} of ${size(this.waiting.size)}). Choose the same file to go on from there.` : ""; },

  get progress() {
    if (this.phase === "making") return "Creating the app";
    if (this.phase === "reading") return "All bytes are here; the image is being checked";
    if (this.phase === "looking") return "Looking which layers are here already";
    if (this.phase === "done") return `${size(this.sent)} uploaded${this.here}`;
    const bytes = `${size(this.sent)} of ${size(this.whole)}`;
    if (this.paused) return `${bytes}, paused`;
    const rate = this.rate();
    if (!rate) return bytes;
    return `${bytes} · ${size(rate)}/s · ${duration((this.whole - this.sent) / rate)} left`;
  },

  rate() {
    const first = this.samples[0];
    const last = this.samples[this.samples.length - 1];
    return first && last.at > first.at ? ((last.sent - first.sent) * 1000) / (last.at - first.at) : 0;
  },

  typed(event) { this.name = event.target.value.trim(); this.complain("slug", ""); },
  enter() { this.over = true; },
  leave() { this.over = false; },
  drop(event) {
    this.over = false;
    const files = event.dataTransfer.files;
    if (files.length > 1) return this.fail(`${files.length} files were dropped, and an image is one archive: drop that one alone.`);
    this.begin(files[0]);
  },
  beside(event) {
    if (event.defaultPrevented || !event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "none";
  },
  choose(event) { this.begin(event.target.files[0]); event.target.value = ""; },

  async begin(file) {
    if (!file) return;
    Object.assign(this, { file, payload: null, spared: 0, sent: 0, samples: [], trouble: "" });
    document.getElementById("image").replaceChildren();
    if (!file.size) return this.fail(`${file.name} is empty. Save the image again, for example with docker save.`);
    if (!this.app && !(await this.make())) { this.phase = "idle"; return; }
    this.phase = "looking";
    const { payload, spared, key } = await withoutKnown(file, (digests) => known(this.app, digests)).catch(() => ({ payload: file, spared: 0, key: "" }));
    if (this.phase !== "looking") return;
    Object.assign(this, { payload, spared });
    this.send(key);
  },

  // A new app is made as soon as there is an image for it.
  async make() {
    this.phase = "making";
    const form = document.getElementById("new-app");
    const answer = await fetch(form.action, { method: "POST", body: new FormData(form), headers: { Accept: "application/json", "X-CSRFToken": csrf() } }).catch(() => null);
    const said = await answer?.json().catch(() => null);
    if (answer?.status === 201) {
      this.app = said.app;
      history.replaceState(null, "", said.address);
      return true;
    }
    for (const [field, words] of Object.entries(said?.errors ?? { slug: ["The portal cannot be reached; try again in a few seconds."] })) this.complain(field, words[0]);
    document.getElementById("id_slug").focus();
    return false;
  },

  complain(field, words) {
    const place = document.getElementById(`trouble-${field}`) ?? document.getElementById("trouble-slug");
    if (place) { place.textContent = words; place.hidden = !words; }
  },

  async send(key) {
    const app = this.app;
    const { name, size: bytes, lastModified } = this.file;
    this.upload = new tus.Upload(this.payload, {
      endpoint: "/api/v1/uploads",
      chunkSize: CHUNK,
      retryDelays: [0, 500, 1500, 4000, 8000, 15000],
      metadata: { app, filename: this.file.name },
      headers: { "X-CSRFToken": csrf() },
      removeFingerprintOnSuccess: true,
      fingerprint: async () => `moorage-${app}-${name}-${bytes}-${lastModified}-${key}`,
      onShouldRetry: (error) => !error.originalResponse || error.originalResponse.getStatus() >= 500 || [409, 423].includes(error.originalResponse.getStatus()),
      onProgress: (sent, all) => this.moved(sent, all),
      onError: (error) => this.fail(reason(error)),
      onSuccess: () => this.finished(),
    });
    const [before] = await this.upload.findPreviousUploads();
    if (before) this.upload.resumeFromPreviousUpload(before);
    this.phase = "sending";
    this.waiting = null;
    this.upload.start();
  },

  moved(sent, all) {
    if (this.phase !== "sending") return;
    const at = Date.now();
    if (!this.samples.length || sent < this.sent) this.samples = [];
    this.sent = sent;
    this.samples.push({ at, sent });
    while (this.samples.length > 2 && this.samples[0].at < at - RATE_WINDOW) this.samples.shift();
    localStorage.setItem(`moorage-sent-${this.app}`, JSON.stringify({ name: this.file.name, size: all, sent, at }));
    if (sent === all) this.phase = "reading";
  },

  async pause() {
    if (this.paused) { this.samples = []; this.phase = "sending"; this.upload.start(); return; }
    this.phase = "paused";
    await this.upload.abort();
  },

  async cancel() {
    await this.upload?.abort(true).catch(() => {});
    this.forget();
    Object.assign(this, { phase: "idle", file: null, sent: 0, waiting: null });
  },

  async finished() {
    this.phase = "reading";
    this.forget();
    const answer = await fetch(this.upload.url).then((r) => r.json()).catch(() => null);
    if (!answer?.image) return this.fail(answer?.error || "The image could not be read back. Upload it again.");
    this.phase = "done";
    this.sent = this.whole;
    await htmx.ajax("GET", `/apps/${this.app}/images/${answer.image.id}`, { target: "#image", swap: "innerHTML" });
    document.querySelector("#image [type=submit]")?.focus();
  },

  fail(words) {
    this.phase = "failed";
    this.trouble = words;
    this.forget();
  },

  forget() { localStorage.removeItem(`moorage-sent-${this.app}`); },

  // After a reload the bytes are still on the server; the browser only needs to be handed the file again.
  async unfinished() {
    const kept = this.app && JSON.parse(localStorage.getItem(`moorage-sent-${this.app}`) ?? "null");
    if (kept && Date.now() - kept.at < 24 * 3600 * 1000 && kept.sent < kept.size) this.waiting = kept;
    else if (kept) this.forget();
  },
}));

/** Of these digests those that the app's team has; none when it cannot be asked: then all is sent. */
async function known(app, digests) {
  const answer = await fetch("/api/v1/uploads/known", { method: "POST", body: JSON.stringify({ app, digests }), headers: { "Content-Type": "application/json", "X-CSRFToken": csrf() } });
  return answer.ok ? (await answer.json()).known.map((blob) => blob.digest) : [];
}

function reason(error) {
  const body = error.originalResponse?.getBody();
  try {
    const said = JSON.parse(body);
    return [said.detail, said.hint].filter(Boolean).join(" ");
  } catch {
    return error.originalResponse ? `The portal answered ${error.originalResponse.getStatus()}. Try again; what was sent is kept for 24 hours.` : "The connection was lost for too long. Choose the same file again to go on where it stopped.";
  }
}

Alpine.start();
