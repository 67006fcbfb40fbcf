/* Which rows pass, and how many of each value would: every dimension puts each row into a bin, and holds one
   bit of the row's mask. A histogram counts the rows that all other dimensions let pass. */
"use strict";
(() => {
  const page = window.listeningPage;
  const dimensions = [];
  let mask = null;
  let order = null;
  const orders = new Map();
  const changed = [];

  class Dimension {
    constructor(name, title, bins, labels, extra = {}) {
      Object.assign(this, {name, title, bins, labels}, extra);
      this.bit = 1 << dimensions.length;
      this.all = new Uint32Array(labels.length);
      for (let i = 0; i < bins.length; i++) this.all[bins[i]]++;
      this.counts = this.all;
      this.chosen = new Set();
      dimensions.push(this);
    }

    get active() { return this.chosen.size > 0; }

    choose(bins) {
      this.chosen = new Set(bins);
      const passes = new Uint8Array(this.labels.length);
      for (const bin of this.chosen) passes[bin] = 1;
      const none = !this.active;
      for (let i = 0; i < mask.length; i++) {
        if (none || passes[this.bins[i]]) mask[i] &= ~this.bit;
        else mask[i] |= this.bit;
      }
    }
  }

  /* Search has no bins, but a bit as all others. */
  const QUERY = 1 << 7;
  let query = "";
  function find(text) {
    query = text;
    const found = page.search(text);
    for (let i = 0; i < mask.length; i++) {
      if (!found || found[i]) mask[i] &= ~QUERY;
      else mask[i] |= QUERY;
    }
  }

  function add(name, title, values, labels, extra) {
    return new Dimension(name, title, values, labels, extra);
  }

  function apply() {
    for (const dimension of dimensions) {
      const {bins, bit} = dimension;
      const counts = new Uint32Array(dimension.labels.length);
      for (let i = 0; i < mask.length; i++) if (!(mask[i] & ~bit)) counts[bins[i]]++;
      dimension.counts = counts;
    }
    const found = new Uint32Array(mask.length);
    let n = 0;
    for (let k = 0; k < order.length; k++) if (!mask[order[k]]) found[n++] = order[k];
    page.found = found.subarray(0, n);
    for (const listener of changed) listener();
  }

  /* Sort all rows once by each measure that is asked for; NaN comes last. */
  function sortBy(name, measure, descending) {
    if (!orders.has(name)) {
      const made = new Uint32Array(page.store.rows);
      const values = new Float64Array(made.length);
      for (let i = 0; i < made.length; i++) {
        const value = measure(i);
        made[i] = i;
        values[i] = Number.isNaN(value) ? Infinity : descending ? -value : value;
      }
      made.sort((a, b) => values[a] - values[b] || a - b);
      orders.set(name, made);
    }
    order = orders.get(name);
  }

  page.filters = {
    dimensions, add, apply, find, sortBy,
    start: (rows) => { mask = new Uint8Array(rows); },
    passes: (row, but = 0) => !(mask[row] & ~but),
    onChange: (listener) => changed.push(listener),
    get query() { return query; },
    get active() { return Boolean(query.trim()) || dimensions.some((dimension) => dimension.active); },
    named: (name) => dimensions.find((dimension) => dimension.name === name),
    clear: () => { for (const dimension of dimensions) if (dimension.active) dimension.choose([]); find(""); },
  };
})();
