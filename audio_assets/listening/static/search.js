/* Search in words: a row is found if each word of the query begins a word of its text or key. A phrase in
   quotation marks is found as it stands. Letters count, case and signs do not. */
"use strict";
(() => {
  const page = window.listeningPage;
  // Written without blanks, so that a word may begin anywhere.
  const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;
  const SIGNS = /[^\p{L}\p{N}\p{M}]+/gu;
  const haystack = [];

  const plain = (text) => text.normalize("NFKC").toLowerCase().replace(SIGNS, " ");

  page.onTexts((from, to) => {
    const {Key, transcribed_text: text} = page.store.texts;
    for (let i = from; i < to; i++) haystack[i] = plain(` ${text[i] || ""} ${Key[i]}`);
  });

  function needles(query) {
    const parts = query.match(/["“”][^"“”]*["“”]?|[^\s"“”]+/gu) || [];
    return parts.map((part) => plain(part).trim()).filter(Boolean)
      .map((word) => (UNSPACED.test(word) ? word : ` ${word}`));
  }

  /* Whether each row matches, as a Uint8Array; null where the query says nothing. */
  function search(query) {
    const wanted = needles(query);
    if (!wanted.length) return null;
    const found = new Uint8Array(page.store.rows);
    for (let i = 0; i < haystack.length; i++) {
      let all = 1;
      for (let k = 0; k < wanted.length && all; k++) if (!haystack[i].includes(wanted[k])) all = 0;
      found[i] = all;
    }
    return found;
  }

  page.search = search;
})();
