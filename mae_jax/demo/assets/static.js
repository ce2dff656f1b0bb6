/* The backend that computes in the browser, without a server: it reads only files beside it. For its
   interface see page.js. */
import { fromBase64 } from "./bytes.js";
import { sampled, uniform } from "./masks.js";
import { prepared } from "./prepare.js";

const MOST = { rows: 10, nearest: 8 };
const STRENGTH = 0.55; /* Share of the color of a class over an image. */
const here = (name) => new URL(`./${name}`, import.meta.url);

async function read(name, as) {
  const response = await fetch(here(name)).catch(() => null);
  if (!response?.ok) throw new Error(`${name} beside this page cannot be loaded`);
  return response[as]();
}

let info = null; /* The content of info.json. */

/* Runs the model in a worker: feeds by name, as [type, data, shape], to outputs by name. */
const waiting = new Map();
const worker = new Worker(here("worker.js"), { type: "module" });
worker.onmessage = ({ data: { id, outputs, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(outputs);
  else reject(new Error(`the model cannot be run: ${error}`));
};
let broken = null;
worker.onerror = () => {
  broken = new Error("worker.js or ort/ort.js beside this page cannot be loaded");
  for (const { reject } of waiting.values()) reject(broken);
  waiting.clear();
};
let count = 0;
function run(feeds) {
  return new Promise((resolve, reject) => {
    if (broken) throw broken;
    waiting.set(++count, { resolve, reject });
    worker.postMessage({ id: count, feeds });
  });
}

/* The outputs for an image under a mask [L], which models without a decoder do not read. */
export function outputs({ pixels }, hidden) {
  const places = hidden.map((_, patch) => patch);
  const keep = places.filter((patch) => !hidden[patch]);
  const masked = places.filter((patch) => hidden[patch]);
  const restore = [];
  [...keep, ...masked].forEach((patch, place) => { restore[patch] = place; });
  const indices = { keep, masked, restore };
  const feeds = { image: ["uint8", pixels, [1, ...info.image]] };
  for (const [name, values] of Object.entries(indices))
    feeds[name] = ["int32", Int32Array.from(values), [1, values.length]];
  feeds.mask = ["bool", Uint8Array.from(hidden, Number), [1, hidden.length]];
  return run(feeds);
}

/* The outputs for an image without a mask, computed once. */
const whole = new WeakMap();
function ofWhole(image) {
  if (!whole.has(image)) {
    const found = outputs(image, Array(info.grid[0] * info.grid[1]).fill(false));
    whole.set(image, found);
    found.catch(() => whole.delete(image));
  }
  return whole.get(image);
}

/* Pixels of any number of channels as red, green, blue; of other than three the first is shown. */
function rgb(pixels, places) {
  const channels = pixels.length / places;
  if (channels === 3) return Uint8Array.from(pixels);
  return Uint8Array.from({ length: 3 * places }, (_, place) =>
    pixels[Math.floor(place / 3) * channels]);
}

function picture(label, pixels) {
  const [height, width] = info.image;
  return { label, height, width, pixels: rgb(pixels, height * width) };
}

/* Names and values as rows, the best first. */
function ranked(names, values, text, share) {
  const rows = [...values].map((value, index) => ({ name: names[index], value }));
  rows.sort((a, b) => b.value - a.value);
  return rows.slice(0, MOST.rows).map(({ name, value }) =>
    ({ name, text: text(value), share: share(value) }));
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const same = (value) => value;

/* Output of a model -> what it says, see `predict` in page.js. */
const PREDICTIONS = {
  logits(values, { names }) {
    const highest = Math.max(...values);
    const powers = [...values].map((value) => Math.exp(value - highest));
    const sum = powers.reduce((all, one) => all + one, 0);
    return { rows: ranked(names, powers.map((power) => power / sum), percent, same) };
  },

  multilabel_logits(values, { names }) {
    const shares = [...values].map((value) => 1 / (1 + Math.exp(-value)));
    return { rows: ranked(names, shares, percent, same) };
  },

  prediction(values, { names }) {
    return { rows: [...values].map((value, index) =>
      ({ name: names[index], text: String(Number(value.toPrecision(4))), share: null })) };
  },

  segmentation(values, { names, colors }, image) {
    const [height, width] = info.image;
    const shown = rgb(image.pixels, height * width);
    const counts = names.map(() => 0);
    for (let place = 0; place < height * width; place++) {
      let best = 0;
      for (let name = 1; name < names.length; name++)
        if (values[place * names.length + name] > values[place * names.length + best]) best = name;
      counts[best] += 1;
      if (best > 0)
        for (let color = 0; color < 3; color++)
          shown[3 * place + color] = Math.round((1 - STRENGTH) * shown[3 * place + color]
            + STRENGTH * parseInt(colors[best].slice(1 + 2 * color, 3 + 2 * color), 16));
    }
    const shares = counts.map((number) => number / (height * width));
    const present = names.map((_, name) => name).filter((name) => counts[name])
      .sort((a, b) => counts[b] - counts[a]);
    return {
      rows: present.slice(0, MOST.rows).map((name) =>
        ({ name: names[name], text: percent(shares[name]), share: shares[name] })),
      pictures: [picture("predicted classes", shown)],
      classes: present.map((name) => ({ name: names[name], color: colors[name] })),
    };
  },
};

/* Numbers of half precision as bytes, little-endian. */
function halves(buffer) {
  const words = new Uint16Array(buffer);
  return Float32Array.from(words, (word) => {
    const power = (word >> 10) & 31;
    const fraction = word & 1023;
    const size = power ? (1 + fraction / 1024) * 2 ** (power - 15) : fraction * 2 ** -24;
    return word & 32768 ? -size : size;
  });
}

/* CRC-32 of bytes, as of zlib: it tells whether two images are the same. */
function checksum(bytes) {
  let sum = ~0;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum >>> 0;
}

/* Features of the searched images, and a canvas with small pictures of them, loaded once. */
let loading = null;
function searched() {
  loading ??= Promise.all([
    read("features.bin", "arrayBuffer").then(halves),
    read("nearest.jpg", "blob").then(createImageBitmap).then((bitmap) => {
      const pen = new OffscreenCanvas(bitmap.width, bitmap.height)
        .getContext("2d", { willReadFrequently: true });
      pen.drawImage(bitmap, 0, 0);
      return pen;
    }),
  ]);
  return loading;
}

export const backend = {
  async info() {
    info = await read("info.json", "json");
    const examples = info.examples.map((one) => ({ ...one, pixels: fromBase64(one.pixels) }));
    return { ...info, examples };
  },

  async open(file) {
    const { image, steps, background } = info;
    return { name: file.name, pixels: await prepared(file, { image, steps, background }) };
  },

  async reconstruct({ image, strategy, ratio, seed, hidden }) {
    const { strategies, ratios } = info.reconstruct;
    const masked = strategies.length > 0;
    if (masked && hidden === null) {
      const visible = info.visible[ratios.indexOf(ratio)];
      hidden = sampled(info.masks[strategy], info.grid, visible, uniform(seed));
    }
    const found = masked ? await outputs(image, hidden) : await ofWhole(image);
    const pictures = info.pictures.map((label, index) => picture(label, found[`picture_${index}`]));
    const errors = masked && hidden.some(same)
      ? hidden.map((one, patch) => (one ? Number(found.errors[patch].toPrecision(5)) : null))
      : null;
    return { hidden: masked ? hidden : [], pictures, errors, measure: info.measure };
  },

  async predict(image) {
    const { output } = info.prediction;
    const values = (await ofWhole(image))[output];
    return { rows: [], pictures: [], classes: [],
      ...PREDICTIONS[output](values, info.prediction, image) };
  },

  async nearest(image) {
    const [found, [features, pen]] = await Promise.all([ofWhole(image), searched()]);
    const { names, checksums, columns, height, width } = info.searched;
    const query = found.features;
    const length = Math.hypot(...query) || 1;
    const own = checksum(image.pixels);
    const cosines = names.map((_, number) => query.reduce((sum, value, index) =>
      sum + (value / length) * features[number * query.length + index], 0));
    const order = names.map((_, number) => number).filter((number) => checksums[number] !== own)
      .sort((a, b) => cosines[b] - cosines[a] || a - b);
    return order.slice(0, MOST.nearest).map((number) => {
      const left = (number % columns) * info.searched.cell[1];
      const top = Math.floor(number / columns) * info.searched.cell[0];
      const { data } = pen.getImageData(left, top, width, height);
      const pixels = Uint8Array.from({ length: 3 * height * width }, (_, place) =>
        data[4 * Math.floor(place / 3) + (place % 3)]);
      const label = names[number];
      return { name: label, text: cosines[number].toFixed(3),
        picture: { label, height, width, pixels } };
    });
  },
};
