/* The chosen row: what the table says of it, and its audio, played and drawn. The audio is fetched once a row
   is chosen, and never before. */
"use strict";
(() => {
  const page = window.listeningPage;
  const {element, count, fixed, seconds, bytes, moment, colour, canvasOf} = page.format;
  // What Whisper hears; half of it is the highest tone that the spectrogram shows.
  const RATE = 16000;
  const LONGEST_S = 1200;
  const box = document.getElementById("detail");
  let current = null;

  const ICONS = {play: "M4 2.5v11l9.5-5.5z", pause: "M3.5 2.5h3.2v11H3.5zM9.3 2.5h3.2v11H9.3z",
    link: "M6.5 9.5l3-3M7 4.5l1.6-1.6a3 3 0 0 1 4.3 4.3L11.3 8.8M9 11.5l-1.6 1.6a3 3 0 0 1-4.3-4.3l1.6-1.6",
    close: "M4 4l8 8M12 4l-8 8", up: "M3.5 10 8 5.5l4.5 4.5", down: "M3.5 6 8 10.5 12.5 6"};

  function icon(name) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.setAttribute("viewBox", "0 0 16 16");
    svg.setAttribute("aria-hidden", "true");
    svg.setAttribute("class", name === "play" || name === "pause" ? "solid" : "");
    path.setAttribute("d", ICONS[name]);
    svg.append(path);
    return svg;
  }

  function button(name, label, onclick) {
    return element("button", {type: "button", class: "icon", "aria-label": label, title: label, onclick}, icon(name));
  }

  async function copyLink(event) {
    const pressed = event.currentTarget;
    try {
      await navigator.clipboard.writeText(location.href);
      pressed.title = "Copied";
      pressed.classList.add("done");
      page.say("The link is copied");
    } catch {
      page.say("Copy the address of this page: it leads to this row");
    }
  }

  function facts(row) {
    const {columns, texts} = page.store;
    const rate = columns.characters[row] / columns.duration_s[row];
    const said = [
      ["status", page.named("status", row)],
      ["language", page.named("language", row)],
      ["avg_logprob", fixed(columns.avg_logprob[row], 3)],
      ["no_speech_prob", fixed(columns.no_speech_prob[row], 3)],
      ["compression_ratio", fixed(columns.compression_ratio[row], 2)],
      ["temperature", fixed(columns.temperature[row], 1)],
      ["characters a second", fixed(rate, 1)],
      ["duration", seconds(columns.duration_s[row])],
      ["sample rate", Number.isNaN(columns.sample_rate_hz[row]) ? null : `${count(columns.sample_rate_hz[row])} Hz`],
      ["channels", fixed(columns.channels[row], 0)],
      ["size", bytes(columns.Size[row])],
      ["last modified", moment(columns.LastModified[row])],
      ["model", page.named("whisper_model", row)],
      ["tokeniser", page.named("tokeniser", row)],
    ].filter(([, value]) => value && value !== "–");
    const list = element("dl", {class: "facts"});
    for (const [name, value] of said) {
      list.append(element("div", {}, element("dt", {}, name), element("dd", {dir: "auto"}, String(value))));
    }
    if (texts.error[row]) list.prepend(element("div", {class: "wide bad"}, element("dt", {}, "why it failed"), element("dd", {}, texts.error[row])));
    return list;
  }

  function open(row) {
    close();
    const key = page.store.texts.Key[row];
    const text = (page.store.texts.transcribed_text[row] || "").trim();
    const slash = key.lastIndexOf("/") + 1;
    const status = page.named("status", row);
    const sound = element("div", {class: "sound"});
    box.replaceChildren(
      element("div", {class: "detail-head"},
        element("div", {class: "name"}, element("span", {class: "folder"}, element("bdi", {}, key.slice(0, slash))), element("bdi", {}, key.slice(slash))),
        button("up", "Previous row", () => page.list.step(-1)),
        button("down", "Next row", () => page.list.step(1)),
        button("link", "Copy a link to this row", copyLink),
        button("close", "Close", () => page.open(-1))),
      sound,
      element("blockquote", {class: text ? "said" : "said pale", dir: "auto"},
        text || (status === "ok" ? "nothing heard" : status === "failed" ? "not transcribed" : "no audio of a format that is read")),
      element("div", {class: "sure"}, ...page.list.confidence(page.store.columns.avg_logprob[row], status)),
      facts(row));
    document.body.classList.add("opened");
    current = {row, audio: null, urls: []};
    if (status !== "not_flac") hear(current, sound).catch((error) => note(sound, String(error)));
  }

  function close() {
    if (current?.audio) current.audio.pause();
    for (const url of current?.urls || []) URL.revokeObjectURL(url);
    current = null;
    document.body.classList.remove("opened");
    box.replaceChildren(element("p", {class: "blank"}, "Choose a row to see and hear it."));
  }

  // A browser goes by the type of a Blob, not by what is in it.
  const TYPES = {flac: "flac", wav: "wav", mp3: "mpeg", ogg: "ogg", opus: "ogg", m4a: "mp4", aac: "aac", webm: "webm"};
  function mediaType(row) {
    const key = page.store.texts.Key[row];
    return `audio/${TYPES[key.slice(key.lastIndexOf(".") + 1).toLowerCase()] || "flac"}`;
  }

  const note = (sound, text) => sound.append(element("p", {class: "note"}, text));

  /* The bytes of the audio, and the address that it plays from; null where there is none. */
  async function fetchAudio(row) {
    const {kind, url} = page.store.meta.audio;
    const name = page.store.texts.clip[row];
    if (kind === "copy") return name ? {bytes: await page.copy(name)} : null;
    if (kind !== "link") return null;
    const key = page.store.texts.Key[row];
    const address = `${url}/${key.split("/").map(encodeURIComponent).join("/")}`;
    try {
      const answer = await fetch(address);
      if (!answer.ok) return {address, gone: `The audio's place answers ${answer.status}.`};
      return {address, bytes: new Uint8Array(await answer.arrayBuffer())};
    } catch {
      return {address};
    }
  }

  async function hear(opened, sound) {
    sound.setAttribute("aria-busy", "true");
    const found = await fetchAudio(opened.row);
    sound.removeAttribute("aria-busy");
    if (opened !== current) return;
    if (!found) return note(sound, page.store.meta.audio.kind === "none"
      ? "This page was made without audio." : "This page holds no copy of this object.");
    if (found.gone) return note(sound, found.gone);
    const audio = new Audio();
    opened.audio = audio;
    audio.preload = "auto";
    if (found.bytes) {
      const url = URL.createObjectURL(new Blob([found.bytes], {type: mediaType(opened.row)}));
      opened.urls.push(url);
      audio.src = url;
    } else audio.src = found.address;
    const stage = controls(opened, sound, audio);
    if (!found.bytes) {
      return note(sound, "A page that is opened from a disk may play this file but not look into it: no"
        + " waveform. Open the page over HTTP, or make it with --audio copy.");
    }
    if (page.store.columns.duration_s[opened.row] > LONGEST_S) return note(sound, "Longer than 20 minutes: not drawn.");
    try {
      // A copy, for decoding empties what it is given.
      const decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(found.bytes.slice().buffer);
      if (opened !== current) return;
      opened.draw = () => stage(decoded.getChannelData(0));
      opened.draw();
    } catch {
      note(sound, "The browser cannot decode this audio.");
    }
  }

  function controls(opened, sound, audio) {
    const wave = element("canvas", {"aria-hidden": "true"});
    const tones = element("canvas", {"aria-hidden": "true"});
    const head = element("i", {class: "head"});
    const slider = element("div", {class: "wave", role: "slider", tabindex: "0", "aria-label": "Position",
      "aria-valuemin": "0"}, wave, tones, head);
    const play = button("play", "Play", toggle);
    play.classList.add("play");
    const time = element("output", {class: "clock"}, "0.0 s");
    const speed = element("select", {"aria-label": "Speed"});
    for (const rate of [0.5, 0.75, 1, 1.5, 2]) {
      speed.append(element("option", {value: rate, selected: rate === 1}, `${rate} ×`));
    }
    speed.addEventListener("change", () => { audio.playbackRate = Number(speed.value); });
    const length = () => audio.duration || page.store.columns.duration_s[opened.row] || 0;
    const seek = (to) => { audio.currentTime = Math.max(0, Math.min(length(), to)); show(); };
    function show() {
      const share = length() ? audio.currentTime / length() : 0;
      head.style.left = `${100 * share}%`;
      time.textContent = `${seconds(audio.currentTime)} / ${seconds(length())}`;
      slider.setAttribute("aria-valuenow", audio.currentTime.toFixed(2));
      slider.setAttribute("aria-valuemax", length().toFixed(2));
      slider.setAttribute("aria-valuetext", time.textContent);
      if (!audio.paused && opened === current) requestAnimationFrame(show);
    }
    for (const event of ["play", "pause", "ended", "loadedmetadata"]) {
      audio.addEventListener(event, () => {
        play.replaceChildren(icon(audio.paused ? "play" : "pause"));
        play.setAttribute("aria-label", audio.paused ? "Play" : "Pause");
        show();
      });
    }
    audio.addEventListener("error", () => note(sound, "The audio cannot be played: its place does not give it."));
    slider.addEventListener("pointerdown", (event) => {
      const at = slider.getBoundingClientRect();
      const to = (moved) => seek(((moved.clientX - at.left) / at.width) * length());
      to(event);
      slider.setPointerCapture(event.pointerId);
      slider.addEventListener("pointermove", to);
      slider.addEventListener("pointerup", () => slider.removeEventListener("pointermove", to), {once: true});
    });
    slider.addEventListener("keydown", (event) => {
      const by = {ArrowLeft: -0.5, ArrowRight: 0.5, Home: -1e9, End: 1e9}[event.key];
      if (!by) return;
      event.preventDefault();
      seek(audio.currentTime + by);
    });
    sound.append(slider, element("div", {class: "bar"}, play, time, speed));
    show();
    return (samples) => paint(slider, wave, tones, samples);
  }

  function paint(slider, wave, tones, samples) {
    const width = Math.max(64, Math.floor(slider.clientWidth));
    page.spectrum.waveform(canvasOf(wave, width, 72), width, 72, samples, colour("accent"));
    const columns = Math.min(width * 2, Math.max(64, Math.floor(samples.length / 40)));
    const image = page.spectrum.spectrogram(samples, columns);
    const sheet = element("canvas", {width: columns, height: image.height});
    sheet.getContext("2d").putImageData(image, 0, 0);
    const context = canvasOf(tones, width, 112);
    context.drawImage(sheet, 0, 0, width, 112);
    context.font = "10px system-ui, sans-serif";
    context.fillStyle = "rgb(255 255 255 / 75%)";
    context.fillText("8 kHz", 6, 14);
    context.fillText("0", 6, 106);
  }

  function toggle() {
    const audio = current?.audio;
    if (!audio) return;
    if (audio.paused) audio.play().catch(() => {});
    else audio.pause();
  }

  page.player = {open, close, toggle, redraw: () => current?.draw?.()};
})();
