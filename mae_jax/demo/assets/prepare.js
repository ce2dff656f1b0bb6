/* Images of the user, resized and cropped as the run does for evaluation, within rounding. */

const MAX_PIXELS = 36e6; /* Of an image before resizing; counted before it is decoded. */

const cubic = (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : ((-0.5 * x + 2.5) * x - 4) * x + 2);
const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
/* Name -> reach, and the weight at a distance up to it. */
const KERNELS = {
  bilinear: [1, (x) => 1 - x],
  bicubic: [2, cubic],
  lanczos: [3, (x) => sinc(x) * sinc(x / 3)],
};

/* The nearest whole number; halves to the even one, as in Python. */
function even(value) {
  const low = Math.floor(value);
  if (value - low === 0.5) return low + (low % 2);
  return Math.round(value);
}

/* For each of `size` pixels of the result: the first of the source's `count` pixels that it reads,
   and their weights. The source is cropped to `extent` pixels from `start`. */
function taps(start, extent, size, count, kernel) {
  const scale = extent / size;
  return Array.from({ length: size }, (_, pixel) => {
    const center = start + (pixel + 0.5) * scale;
    if (kernel === "nearest") return { first: Math.floor(center), weights: [1] };
    const [reach, weight] = KERNELS[kernel];
    const wide = Math.max(scale, 1);
    const first = Math.max(0, Math.trunc(center - reach * wide + 0.5));
    const end = Math.min(count, Math.trunc(center + reach * wide + 0.5));
    const weights = Array.from({ length: end - first }, (_, tap) => {
      const distance = Math.abs((first + tap + 0.5 - center) / wide);
      return distance < reach ? weight(distance) : 0;
    });
    const sum = weights.reduce((all, one) => all + one, 0);
    return { first, weights: weights.map((one) => one / sum) };
  });
}

/* Applies taps along one axis of pixels [outer, count, inner]; rounds to bytes. */
function applied(pixels, list, count, inner) {
  const outer = pixels.length / (count * inner);
  const result = new Uint8ClampedArray(outer * list.length * inner);
  for (let row = 0; row < outer; row++)
    list.forEach(({ first, weights }, pixel) => {
      for (let value = 0; value < inner; value++) {
        let sum = 0;
        for (let tap = 0; tap < weights.length; tap++)
          sum += weights[tap] * pixels[(row * count + first + tap) * inner + value];
        result[(row * list.length + pixel) * inner + value] = sum;
      }
    });
  return result;
}

/* Crops a box [top, left, height, width] of an image and resizes it to [height, width], with
   antialiasing. Columns come first, as in mae_jax.data.resizing: bytes are clipped in between. */
export function resized({ height, width, channels, pixels }, box, size, kernel) {
  const [top, left, boxHeight, boxWidth] = box;
  const down = taps(top, boxHeight, size[0], height, kernel);
  const across = taps(left, boxWidth, size[1], width, kernel);
  const tall = applied(pixels, down, height, width * channels);
  const found = applied(tall, across, width, channels);
  return { height: size[0], width: size[1], channels, pixels: found };
}

const STEPS = {
  resize(image, { size, kernel, down }) {
    const round = down ? Math.trunc : even;
    const { height, width } = image;
    const side = (length) => round((length * size) / Math.min(height, width));
    const target = Array.isArray(size) ? size : [side(height), side(width)];
    return resized(image, [0, 0, height, width], target, kernel);
  },

  center_crop(image, { size, even: toEven }) {
    const margins = [image.height - size[0], image.width - size[1]];
    if (Math.min(...margins) < 0) return image; /* Fitted at the end. */
    const [top, left] = margins.map((margin) => (toEven ? even : Math.floor)(margin / 2));
    return resized(image, [top, left, ...size], size, "nearest");
  },
};

/* Applies the transforms to an image. If it has another size afterwards, it is cropped to the aspect
   ratio of [height, width] around its center, and resized. */
export function transformed(image, steps, [height, width]) {
  const found = steps.reduce((before, step) => STEPS[step.name](before, step), image);
  if (found.height === height && found.width === width) return found.pixels;
  const factor = Math.min(found.height / height, found.width / width);
  const box = [height * factor, width * factor];
  const start = [(found.height - box[0]) / 2, (found.width - box[1]) / 2];
  return resized(found, [...start, ...box], [height, width], "bicubic").pixels;
}

/* Pixels [height, width, channels] of RGBA pixels on a background [red, green, blue]. Gray is the
   luma of ITU-R BT.601, in the integers of Pillow. */
export function composited(rgba, channels, background) {
  const pixels = new Uint8Array((rgba.length / 4) * channels);
  for (let place = 0; place < rgba.length / 4; place++) {
    const alpha = rgba[4 * place + 3];
    const color = background.map((behind, index) =>
      Math.floor((rgba[4 * place + index] * alpha + behind * (255 - alpha) + 127) / 255));
    if (channels === 3) pixels.set(color, 3 * place);
    else pixels[place] = (color[0] * 19595 + color[1] * 38470 + color[2] * 7471 + 32768) >> 16;
  }
  return pixels;
}

/* The size of an image file, from its header. */
function measured(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve([image.naturalHeight, image.naturalWidth]);
    image.onerror = () => reject(
      new Error("this file is no image that the browser reads, or it is damaged or too large"));
    image.src = url;
  });
}

/* The pixels of an image file.

   file: a Blob
   shape: [height, width, channels] of the result
   steps: transforms for evaluation
   background: [red, green, blue] behind transparent pixels */
export async function prepared(file, { image: [height, width, channels], steps, background }) {
  if (channels !== 1 && channels !== 3)
    throw new Error(`files cannot be images of ${channels} channels: choose one of the examples`);
  const url = URL.createObjectURL(file);
  try {
    const [rows, columns] = await measured(url);
    if (rows * columns > MAX_PIXELS)
      throw new Error(`${columns} x ${rows} pixels are over the limit of 36 million: make it smaller`);
  } finally {
    URL.revokeObjectURL(url);
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(
      file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error("this image is damaged: the browser cannot decode it");
  }
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
  const { data } = pen.getImageData(0, 0, bitmap.width, bitmap.height);
  const image = {
    height: bitmap.height, width: bitmap.width, channels,
    pixels: composited(data, channels, background),
  };
  return new Uint8Array(transformed(image, steps, [height, width]));
}
