// Live charts of an app: an hour of history, then a point every two seconds, each against the plan's limit.
import { Socket } from "./socket.js";
import { bits, bitsParts, cores, rateParts, short, size, sizeParts } from "./figures.js";

const rate = (n) => rateParts(n).join(" ");
const KINDS = {
  cpu: { series: ["cpu_millicores"], axis: (v) => short(v / 1000), say: (v, limit) => limit ? [short((100 * v) / limit), `% of ${cores(limit)}`] : [short(v / 1000), "cores"], tip: cores, sum: false },
  memory: { series: ["memory_bytes"], binary: true, say: (v, limit) => withLimit(sizeParts(v), limit && size(limit)), tip: size, sum: false },
  disk: { series: ["disk_used_bytes"], binary: true, say: (v, limit) => withLimit(sizeParts(v), limit && size(limit)), tip: size, sum: false },
  pids: { series: ["pids"], axis: (v) => String(Math.round(v)), say: (v, limit) => withLimit([String(Math.round(v)), ""], limit && String(limit)), tip: (v) => `${Math.round(v)} processes`, sum: false },
  network: { series: ["net_in_bps", "net_out_bps"], words: ["in", "out"], say: (v) => bitsParts(v), tip: bits, sum: true, far: true },
  netin: { series: ["net_in_bps"], say: (v, limit) => withLimit(bitsParts(v), limit && bits(limit)), tip: bits, sum: false, far: true },
  netout: { series: ["net_out_bps"], say: (v, limit) => withLimit(bitsParts(v), limit && bits(limit)), tip: bits, sum: false, far: true },
  diskio: { series: ["disk_read_bps", "disk_write_bps"], words: ["read", "written"], say: (v) => rateParts(v), tip: rate, sum: true, far: true },
};
const withLimit = ([figure, unit], limit) => [figure, limit ? `${unit ? `${unit} ` : ""}of ${limit}` : unit];

// Canvas knows no var() or light-dark(): ask the browser what a token is now.
function colour(token) {
  const probe = document.createElement("i");
  probe.style.color = `var(--${token})`;
  probe.hidden = true;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
const faded = (text, share) => text.replace(/\)$/, ` / ${share})`).replace(/^rgb\((\d+), (\d+), (\d+) \//, "rgb($1 $2 $3 /");

class Chart {
  constructor(root, board) {
    this.root = root;
    this.board = board;
    this.kind = KINDS[root.dataset.chart];
    this.limit = Number(root.dataset.limit || 0);
    this.plot = root.querySelector(".plot");
    this.figure = root.querySelector("[data-figure]");
    this.tall = this.plot.classList.contains("tall");
    new ResizeObserver(() => this.u?.setSize(this.box())).observe(this.plot);
  }

  box() {
    return { width: this.plot.clientWidth, height: this.plot.clientHeight };
  }

  // One line per field for sums over the app, one per instance otherwise.
  lines() {
    const { names, times, rows } = this.board;
    if (this.kind.sum) return this.kind.series.map((field) => times.map((t) => total(rows.get(t), names, field)));
    return names.map((name) => times.map((t) => rows.get(t)[name]?.[this.kind.series[0]] ?? null));
  }

  draw() {
    const lines = this.lines();
    this.say(lines);
    const shape = `${lines.length}`;
    if (!this.u || this.shape !== shape) this.make(shape, lines.length);
    this.u.setData([this.board.times, ...lines], true);
  }

  say(lines) {
    const now = lines.map((line) => line.findLast((v) => v !== null)).filter((v) => v !== undefined);
    if (!now.length) return;
    if (this.kind.words) {
      this.figure.replaceChildren(...now.flatMap((v, n) => this.words(...this.kind.say(v), this.kind.words[n])));
      return;
    }
    this.figure.replaceChildren(...this.words(...this.kind.say(Math.max(...now), this.limit)));
  }

  words(figure, unit, word = "") {
    const small = document.createElement("small");
    small.textContent = ` ${unit}${word ? ` ${word}` : ""} `;
    return [document.createTextNode(figure), small];
  }

  make(shape, count) {
    this.u?.destroy();
    this.shape = shape;
    this.plot.querySelector(".wait")?.remove();
    const [accent, other, bad, ink, line] = ["accent", "ok", "bad", "ink-3", "line"].map(colour);
    const series = Array.from({ length: count }, (_, n) => {
      const stroke = n === 0 ? accent : this.kind.words ? other : faded(accent, Math.max(0.35, 1 - n * 0.18));
      return { stroke, width: 1.6, fill: n === 0 ? faded(accent, 0.12) : undefined, points: { show: false }, spanGaps: false };
    });
    const axis = { stroke: ink, font: "11px 'Inter Variable', sans-serif", grid: { stroke: line, width: 1 }, ticks: { show: false } };
    this.u = new uPlot({
      ...this.box(),
      padding: this.tall ? [8, 6, 0, 0] : [4, 0, 2, 0],
      series: [{}, ...series],
      legend: { show: false },
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [0, this.top(high)] }, x: { range: () => this.board.range() } },
      axes: this.tall ? [{ ...axis, grid: { show: false }, size: 26, space: 70, values: (_, all) => all.map((t) => this.board.clock(t)) }, { ...axis, size: 74, splits: (u) => steps(u.scales.y.max, this.kind.binary), values: (_, all) => all.map((v) => (v ? (this.kind.axis ?? this.kind.tip)(v) : "0")) }] : [{ show: false }, { show: false }],
      hooks: { draw: [(u) => this.dashed(u, bad)], setCursor: [(u) => this.tip(u)] },
    }, [this.board.times, ...this.lines()], this.plot);
  }

  // The limit stays in view, except where what is used is so far below it that the line would be flat.
  top(high) {
    const limit = this.kind.far && high < this.allowed() * 0.2 ? 0 : this.allowed();
    return Math.max(limit, high || 0) * 1.12 || 1;
  }

  // Sums over the app are held against as many limits as there are instances.
  allowed() {
    const { names, times, rows } = this.board;
    const row = rows.get(times.at(-1)) ?? {};
    return this.limit * (this.kind.sum ? Math.max(1, names.filter((name) => row[name]).length) : 1);
  }

  dashed(u, stroke) {
    const limit = this.allowed();
    if (!limit || u.scales.y.max < limit) return;
    const y = Math.round(u.valToPos(limit, "y", true)) + 0.5;
    const { ctx, bbox } = u;
    ctx.save();
    Object.assign(ctx, { strokeStyle: stroke, globalAlpha: 0.75, lineWidth: devicePixelRatio });
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }

  tip(u) {
    this.label ??= Object.assign(this.plot.appendChild(document.createElement("div")), { className: "tip", hidden: true });
    const at = u.cursor.idx;
    this.label.hidden = at == null || u.cursor.left < 0;
    if (this.label.hidden) return;
    const values = u.data.slice(1).map((line, n) => line[at] == null ? null : `${this.title(n)}${this.kind.tip(line[at])}`).filter(Boolean);
    this.label.textContent = `${new Date(u.data[0][at] * 1000).toTimeString().slice(0, 8)}${values.length > 1 ? "\n" : "  "}${values.join("\n") || "no figure"}`;
    const half = this.label.offsetWidth / 2;
    this.label.style.left = `${Math.max(0, Math.min(u.width - 2 * half, u.cursor.left - half))}px`;
  }

  title(n) {
    if (this.kind.words) return `${this.kind.words[n]} `;
    return this.board.names.length > 1 ? `${this.board.word(this.board.names[n])} ` : "";
  }
}

const total = (row, names, field) => {
  let sum = null;
  for (const name of names) if (row[name]) sum = (sum ?? 0) + row[name][field];
  return sum;
};

// Round figures for the axis: 1, 2 or 5 times a power of ten, within kB, MB, GB for sizes.
function steps(top, binary) {
  const unit = binary ? 1024 ** Math.max(0, Math.floor(Math.log(top) / Math.log(1024))) : 1;
  const rough = top / unit / 3;
  const ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * ten).find((n) => n >= rough * 0.75) * unit;
  const found = [];
  for (let v = 0; v < top * 0.97; v += step) found.push(v);
  return found;
}

// All points of an app by time; charts read from it.
class Board {
  constructor(root) {
    this.root = root;
    this.span = Number(root.dataset.window || 600);
    this.step = Math.max(2, this.span / 300);
    this.labels = JSON.parse(root.querySelector("script[type='application/json']")?.textContent || "{}");
    this.rows = new Map();
    this.names = [];
    this.times = [];
    this.charts = [...root.querySelectorAll("[data-chart]")].map((el) => new Chart(el, this));
    this.start();
  }

  word(name) {
    return this.labels[name] ?? name;
  }

  clock(time) {
    const at = new Date(time * 1000);
    const hours = at.toTimeString().slice(0, 5);
    return this.span > 86400 * 2 || hours === "00:00" ? at.toLocaleDateString("en-GB", { day: "numeric", month: "short" }) : hours;
  }

  range() {
    const end = this.times.at(-1) ?? Date.now() / 1000;
    // What began a minute ago fills the chart; its first hour is not an empty one.
    return [Math.max(end - this.span, Math.min(this.times[0] ?? end, end - 60)), end];
  }

  // The websocket begins with the last hour; a longer window is asked for once.
  async start() {
    if (this.root.dataset.live) {
      new Socket(() => this.root.dataset.live, { onmessage: (data) => this.heard(data) });
      return;
    }
    const answer = await fetch(this.root.dataset.history, { headers: { Accept: "application/json" } }).catch(() => null);
    if (answer?.ok) this.heard(await answer.json());
    else this.wait("the figures could not be loaded; reload the page");
  }

  heard(data) {
    for (const [name, one] of Object.entries(data.instances ?? {})) this.labels[name] = one.name;
    this.take(flat(data));
    if (!this.times.length) this.wait(this.root.dataset.live ? "waiting for figures" : "no figures in this time");
  }

  wait(words) {
    for (const el of this.root.querySelectorAll(".wait")) el.textContent = words;
  }

  take(points) {
    for (const point of points) {
      const time = Math.round(point.at / this.step) * this.step;
      if (!this.rows.has(time)) this.rows.set(time, {});
      this.rows.get(time)[point.instance] = point;
    }
    this.times = [...this.rows.keys()].sort((a, b) => a - b);
    const oldest = (this.times.at(-1) ?? 0) - this.span;
    for (const time of this.times) if (time < oldest) this.rows.delete(time);
    this.times = this.times.filter((time) => time >= oldest);
    this.names = [...new Set([...this.rows.values()].flatMap((row) => Object.keys(row)))].sort();
    this.instances();
    if (this.times.length > 1) for (const chart of this.charts) chart.draw();
  }

  // Rows of instances elsewhere in the page show their newest figures.
  instances() {
    for (const cell of document.querySelectorAll("[data-now]")) {
      const [name, field] = cell.dataset.now.split(" ");
      const time = this.times.findLast((t) => this.rows.get(t)[name]);
      if (time === undefined) continue;
      const point = this.rows.get(time)[name];
      cell.textContent = field === "cpu" ? `${short(point.cpu_pct_of_limit ?? point.cpu_millicores / 10)} %` : field === "pids" ? point.pids : size(point[field]);
    }
  }
}

// History answers by instance, the websocket with a list: one list for both.
const flat = (data) => (Array.isArray(data) ? data : Object.values(data.instances).flatMap((one) => one.points));

for (const root of document.querySelectorAll("[data-metrics]")) root.board = new Board(root);
