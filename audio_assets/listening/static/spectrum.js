/* Waveform and spectrogram of samples. No state: arrays in, pixels out. */
"use strict";
(() => {
  const page = window.listeningPage;
  const WINDOW = 512;
  const FLOOR_DB = -85;
  // From dark to light, as perceived: black, violet, red, orange, pale yellow.
  const STOPS = [[6, 6, 18], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];

  const PALETTE = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (STOPS.length - 1);
    const low = Math.min(STOPS.length - 2, Math.floor(at));
    for (let c = 0; c < 3; c++) PALETTE[3 * i + c] = STOPS[low][c] + (at - low) * (STOPS[low + 1][c] - STOPS[low][c]);
  }
  const HANN = Float32Array.from({length: WINDOW}, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW));
  const COS = Float32Array.from({length: WINDOW / 2}, (_, i) => Math.cos((2 * Math.PI * i) / WINDOW));
  const SIN = Float32Array.from({length: WINDOW / 2}, (_, i) => -Math.sin((2 * Math.PI * i) / WINDOW));

  /* In place, of length WINDOW: radix-2, decimation in time (Cooley and Tukey 1965). */
  function fft(re, im) {
    for (let i = 1, j = 0; i < WINDOW; i++) {
      let bit = WINDOW >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) {
        [re[i], re[j]] = [re[j], re[i]];
        [im[i], im[j]] = [im[j], im[i]];
      }
    }
    for (let size = 2; size <= WINDOW; size *= 2) {
      const half = size / 2;
      const stride = WINDOW / size;
      for (let first = 0; first < WINDOW; first += size) {
        for (let k = 0; k < half; k++) {
          const a = first + k;
          const b = a + half;
          const x = re[b] * COS[k * stride] - im[b] * SIN[k * stride];
          const y = re[b] * SIN[k * stride] + im[b] * COS[k * stride];
          re[b] = re[a] - x;
          im[b] = im[a] - y;
          re[a] += x;
          im[a] += y;
        }
      }
    }
  }

  /* The lowest and highest sample of each of `n` equal parts. */
  function peaks(samples, n) {
    const made = new Float32Array(2 * n);
    for (let i = 0; i < n; i++) {
      const to = Math.max(Math.floor(((i + 1) * samples.length) / n), Math.floor((i * samples.length) / n) + 1);
      let low = 0;
      let high = 0;
      for (let k = Math.floor((i * samples.length) / n); k < to && k < samples.length; k++) {
        if (samples[k] < low) low = samples[k];
        if (samples[k] > high) high = samples[k];
      }
      made[2 * i] = low;
      made[2 * i + 1] = high;
    }
    return made;
  }

  function waveform(context, width, height, samples, ink) {
    const found = peaks(samples, width);
    let most = 0.02;
    for (const value of found) most = Math.max(most, Math.abs(value));
    context.fillStyle = ink;
    for (let x = 0; x < width; x++) {
      const top = height / 2 - (found[2 * x + 1] / most) * (height / 2 - 2);
      const bottom = height / 2 - (found[2 * x] / most) * (height / 2 - 2);
      context.fillRect(x, top, 1, Math.max(1, bottom - top));
    }
  }

  /* An image of `columns` x WINDOW/2 pixels, low tones at the bottom; decibels below the loudest bin. */
  function spectrogram(samples, columns) {
    const lines = WINDOW / 2;
    const power = new Float32Array(columns * lines);
    const re = new Float32Array(WINDOW);
    const im = new Float32Array(WINDOW);
    let most = 1e-12;
    for (let x = 0; x < columns; x++) {
      const middle = Math.floor(((x + 0.5) * samples.length) / columns);
      for (let i = 0; i < WINDOW; i++) {
        re[i] = (samples[middle - WINDOW / 2 + i] || 0) * HANN[i];
        im[i] = 0;
      }
      fft(re, im);
      for (let y = 0; y < lines; y++) {
        const value = re[y] * re[y] + im[y] * im[y];
        power[x * lines + y] = value;
        if (value > most) most = value;
      }
    }
    const image = new ImageData(columns, lines);
    for (let x = 0; x < columns; x++) {
      for (let y = 0; y < lines; y++) {
        const db = 10 * Math.log10(power[x * lines + y] / most + 1e-12);
        const level = Math.max(0, Math.min(255, Math.round(255 * (1 - db / FLOOR_DB))));
        const at = 4 * ((lines - 1 - y) * columns + x);
        for (let c = 0; c < 3; c++) image.data[at + c] = PALETTE[3 * level + c];
        image.data[at + 3] = 255;
      }
    }
    return image;
  }

  page.spectrum = {waveform, spectrogram, fft, WINDOW};
})();
