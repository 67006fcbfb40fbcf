/* Values as people read them, and elements made without markup, so that no text of a row is ever parsed. */
"use strict";
(() => {
  const whole = new Intl.NumberFormat("en-GB");
  const page = window.listeningPage;
  const BYTES = ["B", "kB", "MB", "GB", "TB"];

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  const minus = (text) => text.replace("-", "−");
  const count = (value) => whole.format(value);
  const fixed = (value, digits) => (Number.isNaN(value) ? "–" : minus(value.toFixed(digits)));

  function seconds(value) {
    if (Number.isNaN(value)) return "–";
    if (value < 60) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
    const minutes = Math.floor(value / 60);
    const rest = String(Math.floor(value % 60)).padStart(2, "0");
    if (minutes < 60) return `${minutes}:${rest}`;
    return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
  }

  function hours(value) {
    const h = value / 3600;
    if (h >= 100) return `${count(Math.round(h))} h`;
    if (h >= 1) return `${h.toFixed(1)} h`;
    if (value >= 60) return `${(value / 60).toFixed(1)} min`;
    return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  }

  function bytes(value) {
    let unit = 0;
    while (value >= 1000 && unit < BYTES.length - 1) { value /= 1000; unit++; }
    return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${BYTES[unit]}`;
  }

  const iso = (ms) => new Date(ms).toISOString();
  const day = (ms) => iso(ms).slice(0, 10);
  const moment = (ms) => `${iso(ms).slice(0, 16).replace("T", " ")} UTC`;

  /* A bound of a histogram: no more digits than its step needs. */
  function bound(value, step) {
    let digits = 0;
    while (digits < 6 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits++;
    return minus(value.toFixed(digits));
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  const tip = document.getElementById("tip");
  function showTip(text, x, y) {
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - box.width - 8))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
  }

  /* A canvas of sharp pixels; gives its context, in CSS pixels. */
  function canvasOf(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    return context;
  }

  page.format = {
    element, count, fixed, seconds, hours, bytes, day, moment, bound, colour, showTip, canvasOf, minus,
  };
})();
