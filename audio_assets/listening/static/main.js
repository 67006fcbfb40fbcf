/* The whole: the dimensions of the rows, the address, the keyboard. The address holds what is filtered, sorted
   and chosen, so that a link shows somebody else the same. */
"use strict";
(() => {
  const page = window.listeningPage;
  const {element, count, hours, fixed, day} = page.format;
  const SORTS = {
    sure: ["Least sure first", (i) => page.store.columns.avg_logprob[i], false],
    surest: ["Surest first", (i) => page.store.columns.avg_logprob[i], true],
    repeating: ["Most repeating first", (i) => page.store.columns.compression_ratio[i], true],
    fast: ["Fastest speech first", rate, true],
    slow: ["Slowest speech first", rate, false],
    long: ["Longest first", (i) => page.store.columns.duration_s[i], true],
    short: ["Shortest first", (i) => page.store.columns.duration_s[i], false],
    newest: ["Newest first", (i) => page.store.columns.LastModified[i], true],
    table: ["By folder and time", (i) => i, false],
  };
  const sort = document.getElementById("sort");
  const query = document.getElementById("query");
  const announced = element("p", {class: "hidden", role: "status"});
  let chosen = -1;
  let wanted = new URLSearchParams(location.hash.slice(1));

  function rate(i) {
    const {characters, duration_s: duration} = page.store.columns;
    return duration[i] > 0 ? characters[i] / duration[i] : NaN;
  }

  page.say = (text) => { announced.textContent = text; };

  // --- the dimensions ---------------------------------------------------------------------------------------

  function coded(name, column, title, extra = {}) {
    const list = page.store.meta.dictionaries[column];
    const codes = page.store.columns[column];
    const bins = new Uint16Array(codes.length);
    for (let i = 0; i < bins.length; i++) bins[i] = Math.min(codes[i], list.length);
    return page.filters.add(name, title, bins, [...list, "none"], extra);
  }

  /* The same reason with other figures in it is the same reason. */
  const reason = (error) => error.replace(/\d+(?:[.,]\d+)*/g, "…");

  function reasons() {
    const labels = ["none"];
    const at = new Map();
    const bins = new Uint16Array(page.store.rows);
    page.store.texts.error.forEach((error, i) => {
      if (!error) return;
      const text = reason(error);
      if (!at.has(text) && labels.length < 1000) {
        at.set(text, labels.length);
        labels.push(text);
      }
      bins[i] = at.get(text) || 0;
    });
    if (labels.length === 1) return;
    const made = page.filters.add("reason", "Why objects failed", bins, labels, {tone: () => "reason"});
    made.all[0] = 0;
    const group = page.histograms.group(made);
    group.id = "reasons";
    document.getElementById("groups").firstChild.after(group);
  }

  page.ready = () => {
    const {columns, rows} = page.store;
    page.filters.start(rows);
    page.heatmap.start();
    const rates = Float32Array.from({length: rows}, (_, i) => rate(i));
    const tone = (bin) => page.store.meta.dictionaries.status[bin] || "";
    const groups = [
      [coded("status", "status", "Status", {tone}), ""],
      [page.histograms.numeric("sure", "Confidence, avg_logprob", columns.avg_logprob, ""), ""],
      [page.histograms.numeric("long", "Duration", columns.duration_s, " s"), " s"],
      [page.histograms.numeric("rate", "Characters a second", rates, ""), ""],
      [coded("language", "language", "Language"), ""],
    ];
    const into = document.getElementById("groups");
    for (const [made, unit] of groups) if (made) into.append(page.histograms.group(made, unit));
    page.filters.onChange(() => { page.histograms.draw(); page.heatmap.draw(); active(); });
    page.list.start();
    heading();
    restore();
    update();
    document.body.classList.add("ready");
    performance.mark("listening-page-ready");
  };

  page.complete = () => {
    reasons();
    // What the address says of texts and reasons can be found now.
    restore();
    update();
    openWanted();
    document.body.classList.add("complete");
    performance.mark("listening-page-complete");
  };

  page.failed = (error) => {
    const missing = `${error.message} is not there. The page was made anew meanwhile, or was copied without its data: load it again.`;
    document.getElementById("subtitle").textContent = missing;
    document.body.classList.add("ready");
  };

  function heading() {
    const {meta, columns} = page.store;
    const range = [Infinity, -Infinity];
    let audio = 0;
    const sure = [];
    for (let i = 0; i < meta.rows; i++) {
      range[0] = Math.min(range[0], columns.LastModified[i]);
      range[1] = Math.max(range[1], columns.LastModified[i]);
      if (!Number.isNaN(columns.avg_logprob[i])) sure.push(columns.avg_logprob[i]);
    }
    const failed = meta.coverage.reduce((sum, one) => sum + one[3], 0);
    for (const one of meta.coverage) audio += one[4];
    const heard = sure.sort((a, b) => a - b)[Math.floor(sure.length / 2)];
    const from = day(range[0]);
    const to = day(range[1]);
    document.title = `Listening page, ${meta.slice.folder || "all folders"}`;
    document.getElementById("title").textContent = meta.slice.folder || "All folders";
    document.getElementById("subtitle").textContent =
      (from === to ? from : `${from} to ${to}`)
      + (meta.total > meta.rows ? `. Of ${count(meta.total)} rows, the ${count(meta.rows)} that need an ear most` : "");
    document.getElementById("made").textContent =
      `Made ${meta.made.slice(0, 16).replace("T", " ")} UTC from ${meta.table}`;
    const figures = [["rows", count(meta.total)], ["audio", hours(audio)],
      ["median avg_logprob", heard === undefined ? "–" : fixed(heard, 2)], ["failed", count(failed)]];
    document.getElementById("figures").append(...figures.map(([name, value]) => {
      const bad = name === "failed" && failed;
      const shown = bad ? element("button", {type: "button", title: "Show them", onclick: onlyFailed}, value) : value;
      return element("div", {class: bad ? "bad" : ""}, element("dt", {}, name), element("dd", {}, shown));
    }));
  }

  function onlyFailed() {
    const status = page.filters.named("status");
    page.choose(status, [status.labels.indexOf("failed")]);
  }

  // --- what is filtered -----------------------------------------------------------------------------------

  page.choose = (dimension, bins) => {
    dimension.choose(bins);
    update();
    remember();
  };

  function update() {
    const started = performance.now();
    page.filters.sortBy(sort.value, SORTS[sort.value][1], SORTS[sort.value][2]);
    page.filters.apply();
    page.lastFilter = performance.now() - started;
  }

  const nameOf = (dimension, bin) => (dimension.labelOf ? dimension.labelOf(bin) : dimension.labels[bin]);

  function span(dimension) {
    const bins = [...dimension.chosen].sort((a, b) => a - b);
    if (bins.length === 1) return nameOf(dimension, bins[0]);
    if (!dimension.numeric || bins.includes(dimension.n)) return `${nameOf(dimension, bins[0])} and ${bins.length - 1} more`;
    const unit = dimension.labels[0].endsWith(" s") ? " s" : "";
    const to = page.format.bound(dimension.low + (bins[bins.length - 1] + 1) * dimension.step, dimension.step);
    return `${page.format.bound(dimension.low + bins[0] * dimension.step, dimension.step)} to ${to}${unit}`;
  }

  function active() {
    const box = document.getElementById("active");
    const chips = page.filters.dimensions.filter((one) => one.active).map((one) =>
      element("button", {type: "button", class: "chip", "aria-label": `Remove the filter ${one.title}`,
        onclick: () => page.choose(one, [])}, element("b", {}, one.title.split(",")[0]), ` ${span(one)} `, element("span", {"aria-hidden": "true"}, "×")));
    box.replaceChildren(...chips);
    document.getElementById("filtered").textContent = chips.length ? `${chips.length} in use` : "";
    document.getElementById("clear").hidden = !page.filters.active;
  }

  // --- the address --------------------------------------------------------------------------------------

  /* A range of numbers holds when the page is made anew with other bins. */
  function bounds(dimension) {
    const bins = [...dimension.chosen].filter((bin) => bin < dimension.n);
    if (!bins.length) return "none";
    const at = (bin) => Number((dimension.low + bin * dimension.step).toPrecision(6));
    return `${at(Math.min(...bins))}~${at(Math.max(...bins) + 1)}`;
  }

  function within(dimension, bin, said) {
    if (bin === dimension.n) return said === "none";
    const [from, to] = said.split("~").map(Number);
    const middle = dimension.low + (bin + 0.5) * dimension.step;
    return middle > from && middle < to;
  }

  function remember() {
    const said = new URLSearchParams();
    if (chosen >= 0) said.set("key", page.store.texts.Key[chosen]);
    if (page.filters.query.trim()) said.set("q", page.filters.query);
    if (sort.value !== "sure") said.set("sort", sort.value);
    for (const dimension of page.filters.dimensions) {
      if (!dimension.active) continue;
      if (!dimension.numeric) {
        for (const bin of [...dimension.chosen].slice(0, 50)) said.append(dimension.name, nameOf(dimension, bin));
      } else said.set(dimension.name, bounds(dimension));
    }
    wanted = said;
    history.replaceState(null, "", `#${said}`);
  }

  function restore() {
    if (wanted.get("sort") in SORTS) sort.value = wanted.get("sort");
    query.value = wanted.get("q") || "";
    page.filters.find(query.value);
    for (const dimension of page.filters.dimensions) {
      const names = new Set(wanted.getAll(dimension.name));
      const bins = [];
      for (let bin = 0; names.size && bin < dimension.labels.length; bin++) {
        const is = dimension.numeric ? within(dimension, bin, [...names][0]) : names.has(nameOf(dimension, bin));
        if (is) bins.push(bin);
      }
      dimension.choose(bins);
    }
  }

  function openWanted() {
    const row = wanted.has("key") ? page.store.texts.Key.indexOf(wanted.get("key")) : -1;
    if (row >= 0) {
      page.open(row);
      page.list.reveal(row);
    } else if (wanted.has("key")) page.say("This page has no row of that key");
    else page.player.close();
  }

  page.open = (row) => {
    if (row >= 0 && page.store.texts.Key[row] === undefined) return;
    chosen = row;
    page.list.choose(row);
    if (row >= 0) page.player.open(row);
    else page.player.close();
    remember();
  };

  // --- keyboard and the rest ----------------------------------------------------------------------------

  let typed = 0;
  query.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => {
      page.filters.find(query.value);
      update();
      remember();
    }, 120);
  });
  query.form.addEventListener("submit", (event) => event.preventDefault());
  for (const [name, [label]] of Object.entries(SORTS)) sort.append(element("option", {value: name}, label));
  sort.addEventListener("change", () => { update(); remember(); });
  document.getElementById("clear").addEventListener("click", () => {
    query.value = "";
    page.filters.clear();
    update();
    remember();
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("rows").focus();
  });
  addEventListener("hashchange", () => {
    wanted = new URLSearchParams(location.hash.slice(1));
    restore();
    update();
    openWanted();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "Escape") {
      if (document.activeElement === query) query.blur();
      else page.open(-1);
    } else if (typing) return;
    else if (event.key === "/") query.focus();
    else if (event.key === "j" || event.key === "n") page.list.step(1);
    else if (event.key === "k" || event.key === "p") page.list.step(-1);
    else if (event.key === " " && !event.target.matches("button, summary, #heatmap")) page.player.toggle();
    else return;
    event.preventDefault();
  });
  for (const scheme of [matchMedia("(prefers-color-scheme: dark)")]) {
    scheme.addEventListener("change", () => { page.heatmap.draw(); page.player.redraw(); });
  }
  const narrow = matchMedia("(max-width: 1099px)");
  document.getElementById("filters").open = !narrow.matches;
  narrow.addEventListener("change", () => { document.getElementById("filters").open = !narrow.matches; });
  document.body.append(announced);
})();
