/* The rows that pass, as a list of which only what is seen has elements: a hundred thousand rows scroll as ten
   do. It is one stop of the keyboard: arrows, Page Up, Page Down, Home and End choose. */
"use strict";
(() => {
  const page = window.listeningPage;
  const {element, count, fixed, seconds} = page.format;
  const SPARE = 6;
  const box = document.getElementById("rows");
  const inner = element("div", {class: "rows-inner"});
  const shown = new Map();
  let tall = 0;
  let chosen = -1;

  const key = (row) => page.store.texts.Key[row];

  function line(row, at) {
    const {columns, texts} = page.store;
    const status = page.named("status", row);
    const known = key(row) !== undefined;
    const text = !known ? "…" : status === "failed" ? texts.error[row] : (texts.transcribed_text[row] || "").trim();
    const said = status === "ok" && !text ? "nothing heard" : status === "not_flac" ? "no audio of a format that is read" : text;
    const made = element("div", {class: `row ${status}${status === "ok" && text ? "" : " pale"}`, role: "option", id: `row-${row}`,
      "aria-selected": String(row === chosen), "aria-posinset": at + 1, "aria-setsize": page.found.length,
      onclick: () => { page.open(row); }},
    element("div", {class: "text", dir: "auto"}, said),
    element("div", {class: "key"}, element("bdi", {}, known ? key(row) : "")),
    element("div", {class: "sure"}, ...confidence(columns.avg_logprob[row], status)),
    element("div", {class: "time"}, seconds(columns.duration_s[row])));
    made.style.transform = `translateY(${at * tall}px)`;
    return made;
  }

  function confidence(value, status) {
    if (status === "failed") return [element("span", {class: "badge"}, "failed")];
    if (Number.isNaN(value)) return [];
    const meter = element("i", {class: "meter"}, element("b"));
    meter.firstChild.style.width = `${100 * Math.exp(Math.min(0, value))}%`;
    return [meter, element("span", {class: `logprob ${level(value)}`, title: "avg_logprob"}, fixed(value, 2))];
  }

  /* Mean probabilities of a token of 0.5 and 0.75. */
  const level = (value) => (value < -0.69 ? "low" : value < -0.29 ? "middle" : "high");

  /* The box scrolls on a wide screen, the page on a phone. */
  function view() {
    const own = box.scrollHeight > box.clientHeight + 1 && getComputedStyle(box).overflowY !== "visible";
    if (own) return {top: box.scrollTop, height: box.clientHeight};
    const at = inner.getBoundingClientRect();
    return {top: Math.max(0, -at.top), height: innerHeight};
  }

  function draw(anew) {
    if (!page.found) return;
    const n = page.found.length;
    tall = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
    inner.style.height = `${n * tall}px`;
    const {top, height} = view();
    const from = Math.max(0, Math.floor(top / tall) - SPARE);
    const to = Math.min(n, Math.ceil((top + height) / tall) + SPARE);
    if (anew) {
      inner.replaceChildren();
      shown.clear();
    }
    for (const [at, made] of shown) {
      if (at < from || at >= to) {
        made.remove();
        shown.delete(at);
      }
    }
    for (let at = from; at < to; at++) {
      if (!shown.has(at)) {
        shown.set(at, line(page.found[at], at));
        inner.append(shown.get(at));
      }
    }
    inner.classList.toggle("blank", !n);
  }

  function choose(row) {
    document.getElementById(`row-${chosen}`)?.setAttribute("aria-selected", "false");
    chosen = row;
    document.getElementById(`row-${row}`)?.setAttribute("aria-selected", "true");
    box.setAttribute("aria-activedescendant", `row-${row}`);
  }

  function reveal(row) {
    const at = page.found.indexOf(row);
    if (at < 0) return;
    const {top, height} = view();
    if (at * tall >= top && (at + 1) * tall <= top + height) return;
    const to = Math.max(0, at * tall - height / 3);
    if (getComputedStyle(box).overflowY !== "visible") box.scrollTop = to;
    else scrollTo(0, to + inner.getBoundingClientRect().top + scrollY);
    draw();
  }

  function step(by) {
    const n = page.found.length;
    if (!n) return;
    const at = page.found.indexOf(chosen);
    const next = page.found[Math.max(0, Math.min(n - 1, at < 0 ? 0 : at + by))];
    page.open(next);
    reveal(next);
  }

  function start() {
    box.append(inner);
    for (const scrolled of [box, window]) scrolled.addEventListener("scroll", () => draw(), {passive: true});
    new ResizeObserver(() => draw(true)).observe(box);
    addEventListener("resize", () => draw(true));
    box.addEventListener("keydown", (event) => {
      const by = {ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9}[event.key];
      if (!by) return;
      event.preventDefault();
      step(by);
    });
    page.filters.onChange(() => {
      if (getComputedStyle(box).overflowY !== "visible") box.scrollTop = 0;
      draw(true);
      const n = page.found.length;
      document.getElementById("count").textContent =
        n === page.store.rows ? count(n) : `${count(n)} of ${count(page.store.rows)}`;
    });
    let drawn = 0;
    page.onTexts(() => {
      cancelAnimationFrame(drawn);
      drawn = requestAnimationFrame(() => draw(true));
    });
  }

  page.list = {start, draw, choose, reveal, step, confidence};
})();
