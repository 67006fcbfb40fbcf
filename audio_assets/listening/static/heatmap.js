/* Coverage by folder and time, on a canvas: thousands of cells cost no elements. Arrows move a cursor through
   it, Enter filters by its cell; what the cursor or the pointer is on is also said in words. */
"use strict";
(() => {
  const page = window.listeningPage;
  const {element, count, hours, fixed, colour, showTip, canvasOf} = page.format;
  const MINUTE = 60000;
  const DAY = 86400000;
  const FOLDERS = 1500;
  const ROW = 20;
  const HEAD = 20;
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

  let dimension;
  let folders;
  let unit;
  let first;
  let width;
  let cursor = null;
  let cells;
  let label;
  let cell;
  let whole;
  const body = element("canvas", {"aria-hidden": "true"});
  const head = element("canvas", {"aria-hidden": "true", class: "heat-head"});
  const box = document.getElementById("heatmap");
  const said = element("p", {class: "hidden", role: "status"});
  const metric = document.getElementById("metric");

  /* The finest unit of time of which there are not too many. Days before that are known of all rows. */
  function unitOf(span, all) {
    if (all && span < 90 * MINUTE) return {name: "minute", ms: MINUTE};
    if (all && span < 4 * DAY) return {name: "hour", ms: 60 * MINUTE};
    if (span < 150 * DAY) return {name: "day", ms: DAY};
    if (span < 1000 * DAY) return {name: "week", ms: 7 * DAY};
    return {name: "four weeks", ms: 28 * DAY};
  }

  function start() {
    const {meta, columns} = page.store;
    const days = meta.coverage.map((one) => Date.parse(one[1]));
    const all = meta.total === meta.rows;
    const range = {low: Infinity, high: -Infinity};
    const moments = all ? columns.LastModified : days;
    for (const moment of moments) {
      range.low = Math.min(range.low, moment);
      range.high = Math.max(range.high, moment);
    }
    unit = unitOf(range.high - range.low, all);
    // 1 January 1970 was a Thursday; weeks begin on Mondays.
    const shift = unit.ms > DAY ? 4 * DAY : 0;
    first = Math.floor((range.low - shift) / unit.ms);
    const last = Math.floor((range.high - shift) / unit.ms);
    unit.at = (moment) => Math.floor((moment - shift) / unit.ms) - first;
    unit.from = (column) => (first + column) * unit.ms + shift;
    width = last - first + 1;
    chooseFolders(meta);
    const names = meta.dictionaries.FolderName;
    const lines = Uint32Array.from(names, (name) => folders.at.get(name) ?? folders.names.length - 1);
    const bins = new Uint32Array(meta.rows);
    for (let i = 0; i < bins.length; i++) {
      bins[i] = lines[columns.FolderName[i]] * width + unit.at(columns.LastModified[i]);
    }
    const labels = {length: folders.names.length * width};
    dimension = page.filters.add("coverage", "Folder and time", bins, labels, {labelOf: words});
    whole = sums();
    for (const [folder, day, rows, failed, duration] of meta.coverage) {
      if (all) break;
      const at = (folders.at.get(folder) ?? folders.names.length - 1) * width + unit.at(Date.parse(day));
      whole.rows[at] += rows;
      whole.failed[at] += failed;
      whole.hours[at] += duration;
    }
    build();
  }

  /* Those with the most rows, where there are too many for a canvas; the others share the last line. */
  function chooseFolders(meta) {
    const rows = new Map();
    for (const [folder, , n] of meta.coverage) rows.set(folder, (rows.get(folder) || 0) + n);
    let names = [...rows.keys()];
    const order = (a, b) => a.localeCompare(b, "en", {numeric: true});
    if (names.length > FOLDERS) {
      names.sort((a, b) => rows.get(b) - rows.get(a));
      const others = names.length - FOLDERS;
      names = [...names.slice(0, FOLDERS).sort(order), `${count(others)} other folders`];
    } else names.sort(order);
    folders = {names, at: new Map(names.map((name, i) => [name, i]))};
  }

  function sums() {
    const n = dimension.labels.length;
    return {rows: new Float64Array(n), failed: new Float64Array(n), hours: new Float64Array(n),
      sure: new Float64Array(n), heard: new Float64Array(n)};
  }

  /* What each cell holds of the rows that all other filters let pass. */
  function measure() {
    const {meta, columns} = page.store;
    const made = sums();
    const failed = meta.dictionaries.status.indexOf("failed");
    for (let i = 0; i < meta.rows; i++) {
      if (!page.filters.passes(i, dimension.bit)) continue;
      const at = dimension.bins[i];
      made.rows[at]++;
      if (columns.status[i] === failed) made.failed[at]++;
      if (columns.duration_s[i] > 0) made.hours[at] += columns.duration_s[i];
      if (!Number.isNaN(columns.avg_logprob[i])) {
        made.sure[at] += columns.avg_logprob[i];
        made.heard[at]++;
      }
    }
    if (meta.total !== meta.rows && !page.filters.active) {
      return {...made, rows: whole.rows, failed: whole.failed, hours: whole.hours};
    }
    return made;
  }

  function words(at) {
    const column = at % width;
    const line = Math.floor(at / width);
    return `${folders.names[line]}, ${timeOf(column)}`;
  }

  function timeOf(column) {
    const from = new Date(unit.from(column)).toISOString();
    if (unit.ms < DAY) return `${from.slice(0, 10)} ${from.slice(11, 16)}`;
    return unit.ms === DAY ? from.slice(0, 10) : `${unit.name} of ${from.slice(0, 10)}`;
  }

  function sentence(at) {
    const rows = cells.rows[at];
    if (!rows) return `${words(at)}: no rows`;
    const parts = [`${count(rows)} rows`, hours(cells.hours[at])];
    if (cells.failed[at]) parts.push(`${count(cells.failed[at])} failed`);
    if (cells.heard[at]) parts.push(`avg_logprob ${fixed(cells.sure[at] / cells.heard[at], 2)}`);
    return `${words(at)}: ${parts.join(", ")}`;
  }

  function valueOf(at) {
    if (metric.value === "confidence") {
      return cells.heard[at] ? Math.exp(cells.sure[at] / cells.heard[at]) : NaN;
    }
    return cells[metric.value][at];
  }

  function build() {
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `Coverage by folder and ${unit.name}; arrows move, Enter filters`);
    box.tabIndex = 0;
    box.append(head, body, said);
    box.addEventListener("pointermove", (event) => {
      const at = under(event);
      showTip(at === null ? "" : sentence(at), event.clientX, event.clientY);
    });
    box.addEventListener("pointerleave", () => showTip(""));
    body.addEventListener("click", (event) => {
      const at = under(event);
      if (at !== null) toggle([at]);
      else toggleLine(event);
    });
    box.addEventListener("keydown", move);
    box.addEventListener("blur", () => { cursor = null; draw(); });
    metric.addEventListener("change", draw);
    new ResizeObserver(draw).observe(box);
    document.getElementById("coverage-note").textContent =
      `${count(folders.names.length)} ${folders.names.length === 1 ? "folder" : "folders"} by ${unit.name}`;
  }

  function under(event) {
    const at = body.getBoundingClientRect();
    const column = Math.floor((event.clientX - at.left - label) / cell);
    const line = Math.floor((event.clientY - at.top) / ROW);
    if (column < 0 || column >= width || line < 0 || line >= folders.names.length) return null;
    return line * width + column;
  }

  /* A click on a folder's name takes all of it. */
  function toggleLine(event) {
    const line = Math.floor((event.clientY - body.getBoundingClientRect().top) / ROW);
    if (line >= folders.names.length) return;
    toggle(Array.from({length: width}, (_, column) => line * width + column).filter((at) => dimension.all[at]));
  }

  function toggle(some) {
    const chosen = new Set(dimension.chosen);
    const all = some.every((at) => chosen.has(at));
    for (const at of some) {
      if (all) chosen.delete(at);
      else chosen.add(at);
    }
    page.choose(dimension, chosen);
  }

  function move(event) {
    const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width};
    if (event.key === "Enter" || event.key === " ") {
      if (cursor !== null) toggle([cursor]);
    } else if (event.key in steps) {
      const next = cursor === null ? 0 : cursor + steps[event.key];
      if (next >= 0 && next < dimension.labels.length) cursor = next;
      said.textContent = sentence(cursor);
      draw();
      const y = HEAD + Math.floor(cursor / width) * ROW;
      if (y < box.scrollTop + HEAD || y + ROW > box.scrollTop + box.clientHeight) box.scrollTop = y - HEAD;
    } else return;
    event.preventDefault();
  }

  /* Where the head says which time it is: at the first column of each month, day or hour. */
  function mark(column) {
    const at = new Date(unit.from(column));
    if (unit.ms < DAY) return at.toISOString().slice(11, 16);
    const before = column ? new Date(unit.from(column - 1)) : null;
    const month = `${MONTHS[at.getUTCMonth()]} ${at.getUTCFullYear()}`;
    if (!before) return `${at.getUTCDate()} ${month}`;
    if (before.getUTCMonth() !== at.getUTCMonth()) return month;
    return unit.ms === DAY && at.getUTCDate() % 5 === 0 ? `${at.getUTCDate()}` : "";
  }

  function draw() {
    if (!dimension) return;
    cells = measure();
    const available = box.clientWidth;
    const styles = getComputedStyle(document.body);
    const font = `12px ${styles.fontFamily}`;
    const n = folders.names.length;
    const probe = body.getContext("2d");
    probe.font = font;
    const longest = Math.max(...folders.names.slice(0, 200).map((name) => probe.measureText(name).width));
    label = Math.min(Math.max(longest + 14, 40), available < 500 ? 96 : 180);
    cell = Math.max(6, Math.min(64, Math.floor((available - label - 2) / width)));
    const full = label + cell * width;
    drawHead(canvasOf(head, full, HEAD), font);
    drawBody(canvasOf(body, full, n * ROW), font);
  }

  function drawHead(context, font) {
    context.font = font;
    context.fillStyle = colour("muted");
    context.textBaseline = "middle";
    const taken = [];
    // Months first: what is left between them is for days.
    const columns = Array.from({length: width}, (_, column) => column);
    columns.sort((a, b) => mark(b).length - mark(a).length || a - b);
    for (const column of columns) {
      const text = mark(column);
      const x = label + column * cell;
      const end = x + context.measureText(text).width;
      if (!text || end > label + width * cell + 2 || taken.some(([from, to]) => x < to + 10 && end + 10 > from)) continue;
      context.fillText(text, x, HEAD / 2);
      taken.push([x, end]);
    }
  }

  function drawBody(context, font) {
    const limits = {low: Infinity, high: 0};
    for (let at = 0; at < dimension.labels.length; at++) {
      const value = valueOf(at);
      if (!value) continue;
      limits.low = Math.min(limits.low, value);
      limits.high = Math.max(limits.high, value);
    }
    const palette = {empty: colour("cell"), ink: colour("ink"), muted: colour("muted"), failed: colour("failed"),
      accent: colour("accent"), surface: colour("surface"), fill: colour(metric.value === "failed" ? "failed" : "accent"),
      fade: metric.value === "confidence"};
    context.font = font;
    context.textBaseline = "middle";
    for (let line = 0; line < folders.names.length; line++) {
      context.fillStyle = palette.muted;
      context.fillText(cut(context, folders.names[line], label - 12), 0, line * ROW + ROW / 2);
      for (let column = 0; column < width; column++) drawCell(context, line, column, limits, palette);
    }
  }

  function drawCell(context, line, column, {low, high}, palette) {
    const at = line * width + column;
    const gap = cell > 12 ? 2 : 1;
    const box = [label + column * cell, line * ROW + 1, cell - gap, ROW - 2];
    const value = valueOf(at);
    const dimmed = dimension.active && !dimension.chosen.has(at);
    context.globalAlpha = 1;
    context.fillStyle = palette.empty;
    rounded(context, box);
    if (value) {
      // From a fifth of the colour on, so that one row shows; roots keep a few large cells from hiding others.
      const share = palette.fade ? (high > low ? (value - low) / (high - low) : 1) : Math.sqrt(value / high);
      context.globalAlpha = (0.2 + 0.8 * share) * (dimmed ? 0.3 : 1);
      context.fillStyle = palette.fill;
      rounded(context, box);
    }
    context.globalAlpha = 1;
    if (cells.failed[at] && metric.value !== "failed" && cell > 8) {
      context.fillStyle = palette.failed;
      context.beginPath();
      context.arc(box[0] + box[2] - 5, box[1] + 5, 2.6, 0, 7);
      context.fill();
      context.strokeStyle = palette.surface;
      context.lineWidth = 1.2;
      context.stroke();
    }
    if (dimension.chosen.has(at) || at === cursor) {
      context.strokeStyle = at === cursor ? palette.accent : palette.ink;
      context.lineWidth = at === cursor ? 2 : 1.25;
      context.strokeRect(box[0] + 0.5, box[1] + 0.5, box[2] - 1, box[3] - 1);
    }
  }

  function rounded(context, [x, y, w, h]) {
    context.beginPath();
    context.roundRect(x, y, w, h, Math.min(3, w / 3));
    context.fill();
  }

  function cut(context, text, room) {
    if (context.measureText(text).width <= room) return text;
    let keep = Math.min(text.length, Math.floor(room / 3));
    while (keep > 1 && context.measureText(`…${text.slice(-keep)}`).width > room) keep--;
    return `…${text.slice(-keep)}`;
  }

  page.heatmap = {start, draw};
})();
