// Every text that is to be seen on the open page, with the contrast (WCAG 2.2, 1.4.3) to what lies behind it.
() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (text) => {
    if (!known.has(text)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = text;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      known.set(text, [r, g, b, a / 255]);
    }
    return known.get(text);
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((part, n) => part * a + under[n] * (1 - a));
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parents = (element) => (element ? [element, ...parents(element.parentElement)] : []);
  const behind = (element) => {
    const layers = [];
    for (const one of parents(element)) {
      layers.push(rgba(getComputedStyle(one).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reduceRight((under, layer) => over(layer, under), [255, 255, 255]);
  };
  const texts = [];
  const look = (element, text, style) => {
    const opacity = parents(element).reduce((share, one) => share * Number(getComputedStyle(one).opacity), 1) * Number(style.opacity === getComputedStyle(element).opacity ? 1 : style.opacity);
    const under = behind(element);
    const [r, g, b, a] = rgba(style.color);
    const [light, dark] = [luminance(over([r, g, b, a * opacity], under)), luminance(under)].sort((one, other) => other - one);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const place = parents(element).slice(0, 3).reverse().map((one) => one.localName + [...one.classList].map((name) => `.${name}`).join("")).join(" > ");
    texts.push({ text: text.trim().slice(0, 60), place, ratio: (light + 0.05) / (dark + 0.05), needed: large ? 3 : 4.5, ground: luminance(under) });
  };
  // What is switched off need not be read, what lies outside the page cannot be.
  const seen = (element, box) => box.width > 1 && box.height > 1 && box.right > 0 && box.bottom > 0
    && element.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && !element.closest(":disabled, [aria-disabled=true], .sr, option, .choice:has(:disabled)");
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!node.data.trim()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    if (seen(node.parentElement, range.getBoundingClientRect())) look(node.parentElement, node.data, getComputedStyle(node.parentElement));
  }
  for (const field of document.querySelectorAll("input:not([type=hidden], [type=checkbox], [type=radio], [type=file]), textarea, select")) {
    if (!seen(field, field.getBoundingClientRect())) continue;
    const empty = !field.value && field.placeholder;
    if (field.value || empty) look(field, field.value || field.placeholder, getComputedStyle(field, empty ? "::placeholder" : undefined));
  }
  return { texts, ground: luminance(behind(document.body)), wider: document.documentElement.scrollWidth - innerWidth };
}
