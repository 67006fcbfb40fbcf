/* The filters beside the rows: bars of numbers, and lists of values. Each bar is a button. */
"use strict";
(() => {
  const page = window.listeningPage;
  const {element, count, bound, showTip} = page.format;
  const TALL = 56;
  const SHOWN = 12;
  const BINS = 24;
  const drawers = [];

  /* About BINS bins of equal and round steps; what lies beyond is counted in the bins at both ends. */
  function scale(values) {
    const sample = [];
    const step = Math.max(1, Math.floor(values.length / 20000));
    for (let i = 0; i < values.length; i += step) if (!Number.isNaN(values[i])) sample.push(values[i]);
    if (!sample.length) return null;
    sample.sort((a, b) => a - b);
    const low = sample[Math.floor(sample.length * 0.005)];
    const high = sample[Math.ceil(sample.length * 0.995) - 1];
    const rough = Math.max((high - low) / BINS, Math.abs(high) * 1e-3, 1e-6);
    const power = 10 ** Math.floor(Math.log10(rough));
    const width = [1, 2, 2.5, 5, 10].map((m) => m * power).find((w) => w >= rough * 0.999);
    const first = Math.floor(low / width + 1e-6);
    const bins = Math.max(1, Math.min(BINS * 2, Math.floor(high / width + 1e-6) - first + 1));
    return {low: first * width, step: width, bins};
  }

  /* A filter by numbers, one bar for each bin; null where there is no number. */
  function numeric(name, title, values, unit) {
    const found = scale(values);
    if (!found) return null;
    const {low, step, bins: n} = found;
    const bins = new Uint16Array(values.length);
    for (let i = 0; i < values.length; i++) {
      const at = Math.floor((values[i] - low) / step + 1e-6);
      // The last bin is of rows that have no value.
      bins[i] = Number.isNaN(values[i]) ? n : at < 0 ? 0 : at >= n ? n - 1 : at;
    }
    const labels = [];
    for (let b = 0; b < n; b++) {
      const from = bound(low + b * step, step);
      labels.push(`${from} to ${bound(low + (b + 1) * step, step)}${unit}`);
    }
    labels.push("none");
    return page.filters.add(name, title, bins, labels, {numeric: true, low, step, n});
  }

  function group(dimension, unit) {
    const clear = element("button", {type: "button", class: "quiet", hidden: true,
      "aria-label": `Clear the filter ${dimension.title}`, onclick: () => page.choose(dimension, [])}, "Clear");
    const head = element("div", {class: "group-head"}, element("h3", {}, dimension.title), clear);
    const body = dimension.numeric ? bars(dimension, unit) : values(dimension);
    drawers.push(() => { clear.hidden = !dimension.active; });
    return element("section", {class: "group", "aria-label": dimension.title}, head, body);
  }

  /* Drag over bars, or Shift and a click or an arrow, take a range; a click takes one bar or gives it back. */
  function bars(dimension, unit) {
    let anchor = null;
    let dragged = false;
    const box = element("div", {class: "bars", role: "group"});
    const most = Math.max(1, ...dimension.all.subarray(0, dimension.n));
    const made = [];
    const range = (a, b) => Array.from({length: Math.abs(b - a) + 1}, (_, k) => Math.min(a, b) + k);
    function pick(bin, extend) {
      if (extend && anchor !== null) page.choose(dimension, range(anchor, bin));
      else {
        anchor = bin;
        const alone = dimension.chosen.size === 1 && dimension.chosen.has(bin);
        page.choose(dimension, alone ? [] : [bin]);
      }
    }
    for (let bin = 0; bin < dimension.n; bin++) {
      const back = element("i", {class: "back"});
      const front = element("i", {class: "front"});
      back.style.height = `${height(dimension.all[bin], most)}px`;
      const button = element("button", {type: "button", tabindex: bin ? "-1" : "0"}, back, front);
      button.addEventListener("pointerdown", (event) => {
        if (event.button || event.shiftKey) return;
        anchor = bin;
        dragged = false;
        box.dataset.dragging = "yes";
        // A finger stays with the bar that it touched first, unless it is let go.
        if (button.hasPointerCapture(event.pointerId)) button.releasePointerCapture(event.pointerId);
        addEventListener("pointerup", () => { delete box.dataset.dragging; }, {once: true});
      });
      button.addEventListener("pointerenter", (event) => {
        showTip(sentence(dimension, bin), event.clientX, event.clientY);
        if (box.dataset.dragging && (dragged || bin !== anchor)) {
          dragged = true;
          page.choose(dimension, range(anchor, bin));
        }
      });
      button.addEventListener("click", (event) => {
        if (dragged) dragged = false;
        else pick(bin, event.shiftKey);
      });
      button.addEventListener("keydown", (event) => {
        const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
        const next = made[bin + step];
        if (!step || !next) return;
        event.preventDefault();
        next.button.focus();
        if (event.shiftKey) {
          if (anchor === null) anchor = bin;
          pick(bin + step, true);
        }
      });
      button.addEventListener("focus", () => { for (const one of made) one.button.tabIndex = one.button === button ? 0 : -1; });
      made.push({button, front});
      box.append(button);
    }
    box.addEventListener("pointerleave", () => showTip(""));
    drawers.push(() => {
      made.forEach(({button, front}, bin) => {
        front.style.height = `${height(dimension.counts[bin], most)}px`;
        const on = dimension.chosen.has(bin);
        button.classList.toggle("off", dimension.active && !on);
        button.setAttribute("aria-pressed", on);
        button.setAttribute("aria-label", sentence(dimension, bin));
      });
    });
    const end = dimension.low + dimension.n * dimension.step;
    const ends = element("div", {class: "ends"},
      element("span", {}, bound(dimension.low, dimension.step)),
      element("span", {}, `${bound(end, dimension.step)}${unit}`));
    const none = dimension.n;
    return element("div", {}, box, ends, dimension.all[none] ? value(dimension, none, "no value") : null);
  }

  const height = (n, most) => (n ? Math.max(2, Math.round(Math.sqrt(n / most) * TALL)) : 0);

  function sentence(dimension, bin) {
    const end = bin === 0 ? " or less" : bin === dimension.n - 1 ? " or more" : "";
    return `${dimension.labels[bin]}${end}: ${count(dimension.counts[bin])} of ${count(dimension.all[bin])} rows`;
  }

  function values(dimension) {
    const order = dimension.labels.map((_, bin) => bin).filter((bin) => dimension.all[bin])
      .sort((a, b) => dimension.all[b] - dimension.all[a]);
    const list = element("div", {class: "values"});
    order.slice(0, SHOWN).forEach((bin) => list.append(value(dimension, bin, dimension.labels[bin])));
    const rest = order.slice(SHOWN);
    if (rest.length) {
      const more = element("button", {type: "button", class: "quiet"}, `${count(rest.length)} more`);
      more.addEventListener("click", () => {
        more.remove();
        rest.slice(0, 300).forEach((bin) => list.append(value(dimension, bin, dimension.labels[bin])));
        draw();
      });
      list.append(more);
    }
    return list;
  }

  function value(dimension, bin, name) {
    const share = element("i", {class: "share"});
    const number = element("span", {class: "number"});
    const button = element("button", {type: "button", class: `value ${dimension.tone?.(bin) || ""}`, title: name,
      onclick: () => {
        const chosen = new Set(dimension.chosen);
        if (!chosen.delete(bin)) chosen.add(bin);
        page.choose(dimension, chosen);
      }}, share, element("span", {class: "name"}, name), number);
    drawers.push(() => {
      const on = dimension.chosen.has(bin);
      button.setAttribute("aria-pressed", on);
      button.classList.toggle("off", dimension.active && !on);
      share.style.width = `${(100 * dimension.counts[bin]) / page.store.rows}%`;
      number.textContent = count(dimension.counts[bin]);
    });
    return button;
  }

  const draw = () => drawers.forEach((one) => one());

  page.histograms = {numeric, group, draw};
})();
