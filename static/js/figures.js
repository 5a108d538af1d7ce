// How figures are said; the same words as portal/figures.py.
export function short(value) {
  const size = Math.abs(value);
  const text = value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size < 1 ? 2 : 1);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

function scaled(value, step, units) {
  let place = 0;
  while (Math.abs(value) >= step * 0.9995 && place < units.length - 1) { value /= step; place += 1; }
  return [place ? short(value) : String(Math.round(value)), units[place]];
}

const BYTES = ["B", "kB", "MB", "GB", "TB", "PB"];
const BITS = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"];
export const sizeParts = (n) => scaled(n || 0, 1024, BYTES);
export const size = (n) => sizeParts(n).join(" ");
export const bitsParts = (n) => scaled(n || 0, 1000, BITS);
export const bits = (n) => bitsParts(n).join(" ");
export const rateParts = (n) => { const [v, u] = scaled(n || 0, 1000, BYTES); return [v, `${u}/s`]; };
export const cores = (m) => `${short(m / 1000)} ${m <= 1000 ? "core" : "cores"}`;

export function duration(seconds) {
  if (seconds < 0.1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 59.5) return seconds < 9.95 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
}

const STEPS = [["year", 31104e3], ["month", 2592e3], ["day", 86400], ["hour", 3600], ["minute", 60]];
export function ago(then, now) {
  const away = (now - then) / 1000;
  const span = Math.abs(away);
  if (span < 45) return away > -5 ? "now" : "in a moment";
  const [unit, length] = STEPS.find(([, n]) => span >= n * 0.95) ?? STEPS[4];
  const count = Math.max(1, Math.round(span / length));
  if (away > 0 && unit === "day" && count === 1) return "yesterday";
  const words = `${count} ${unit}${count === 1 ? "" : "s"}`;
  return away > 0 ? `${words} ago` : `in ${words}`;
}
