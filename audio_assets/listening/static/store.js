/* The rows of the page: typed columns and texts, filled by the files in data/, each of which calls a function
   of `listeningPage`. What the columns mean is written in audio_assets/listening/columns.py. */
"use strict";
window.listeningPage = (() => {
  const TYPES = {
    LastModified: Float64Array, Size: Float64Array, duration_s: Float32Array, avg_logprob: Float32Array,
    no_speech_prob: Float32Array, compression_ratio: Float32Array, temperature: Float32Array,
    sample_rate_hz: Float32Array, channels: Float32Array, characters: Float32Array,
    FolderName: Uint32Array, status: Uint8Array, language: Uint16Array, whisper_model: Uint16Array,
    tokeniser: Uint16Array,
  };
  const store = {meta: null, rows: 0, columns: {}, texts: {}, offsets: [], complete: 0};
  const waiting = new Map();
  const listeners = [];

  function decode(base64, Type) {
    if (Uint8Array.fromBase64) return new Type(Uint8Array.fromBase64(base64).buffer);
    const binary = atob(base64);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return new Type(bytes.buffer);
  }

  /* A script is all that a page opened from a disk may load. */
  function load(path) {
    return new Promise((resolve, reject) => {
      const tag = document.createElement("script");
      tag.src = path;
      tag.onload = () => { tag.remove(); resolve(); };
      tag.onerror = () => { tag.remove(); reject(new Error(path)); };
      document.head.append(tag);
    });
  }

  function meta(given) {
    store.meta = given;
    store.rows = given.rows;
    for (const [name, Type] of Object.entries(TYPES)) store.columns[name] = new Type(given.rows);
    for (const name of ["Key", "transcribed_text", "error", "clip"]) store.texts[name] = new Array(given.rows);
    let offset = 0;
    for (const chunk of given.chunks) {
      store.offsets.push(offset);
      offset += chunk.rows;
    }
    start().catch((error) => page.failed(error));
  }

  async function start() {
    await Promise.all(store.meta.chunks.map((chunk) => load(chunk.numbers)));
    page.ready();
    for (const chunk of store.meta.chunks) {
      await load(chunk.texts);
      // Whoever scrolls or types comes first.
      await new Promise((resolve) => setTimeout(resolve));
    }
    page.complete();
  }

  function numbers(i, given) {
    for (const name of Object.keys(TYPES)) {
      store.columns[name].set(decode(given.columns[name], TYPES[name]), store.offsets[i]);
    }
  }

  function texts(i, given) {
    const first = store.offsets[i];
    for (const name of Object.keys(store.texts)) {
      const into = store.texts[name];
      for (let k = 0; k < given[name].length; k++) into[first + k] = given[name][k];
    }
    store.complete = first + given.Key.length;
    for (const listener of listeners) listener(first, store.complete);
  }

  /* The bytes of a copy of the audio. */
  async function copy(name) {
    const arrived = new Promise((resolve) => waiting.set(name, resolve));
    await load(`clips/${name}.js`);
    const bytes = await arrived;
    waiting.delete(name);
    return bytes;
  }

  function clip(name, base64) {
    const resolve = waiting.get(name);
    if (resolve) resolve(decode(base64, Uint8Array));
  }

  /* The text behind a code, null where it stands for none. */
  function named(column, row) {
    const text = store.meta.dictionaries[column][store.columns[column][row]];
    return text === undefined ? null : text;
  }

  const page = {
    store, meta, numbers, texts, clip, copy, named,
    onTexts: (listener) => listeners.push(listener),
  };
  return page;
})();
