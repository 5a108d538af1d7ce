// What a chart of the open page holds and has drawn: its figure, its newest values, and whether line and limit are on the canvas.
(kind) => {
  const root = document.querySelector(`[data-chart=${kind}]`);
  const chart = root.closest("[data-metrics]").board.charts.find((one) => one.root === root);
  if (!chart.u) return null;
  const { u } = chart;
  const probe = new OffscreenCanvas(1, 1).getContext("2d");
  const colour = (token) => {
    const element = document.body.appendChild(document.createElement("i"));
    element.style.color = `var(--${token})`;
    probe.fillStyle = getComputedStyle(element).color;
    element.remove();
    probe.fillRect(0, 0, 1, 1);
    return probe.getImageData(0, 0, 1, 1).data;
  };
  const like = (pixels, at, wanted) => pixels[at + 3] > 100 && [0, 1, 2].every((n) => Math.abs(pixels[at + n] - wanted[n]) < 24);
  // Of the columns between two places, in how many a colour lies within two pixels of a height.
  const columns = (from, to, y, wanted) => {
    const [left, width, top] = [Math.floor(from), Math.max(1, Math.ceil(to - from)), Math.max(0, Math.round(y) - 2)];
    const pixels = u.ctx.getImageData(left, top, width, 5).data;
    let found = 0;
    for (let x = 0; x < width; x++) if ([0, 1, 2, 3, 4].some((row) => like(pixels, 4 * (row * width + x), wanted))) found++;
    return found / width;
  };
  const lines = u.data.slice(1);
  const last = lines.map((line) => line.findLastIndex((value) => value !== null));
  const x = (index) => u.valToPos(u.data[0][index], "x", true);
  const y = (value) => u.valToPos(value, "y", true);
  return {
    figure: chart.figure.innerText.replace(/\s+/g, " ").trim(),
    title: root.querySelector(".k").innerText,
    limit: chart.limit,
    values: lines.map((line, n) => line[last[n]]),
    drawn: lines.map((line, n) => columns(x(last[n]) - 3, x(last[n]), y(line[last[n]]), colour(n ? "ok" : "accent")) > 0),
    limited: u.scales.y.max >= chart.limit && columns(u.bbox.left, u.bbox.left + u.bbox.width, y(chart.limit), colour("bad")) > 0.3,
  };
}
