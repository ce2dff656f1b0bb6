/* A page to try a trained model with: choose an image, mask patches, see the outputs.

   The page computes nothing itself. `backend.js` beside it exports `backend`, an object with these
   functions; all of them return promises, which fail with an Error of one line for the user:

   info() -> {
     title, facts: texts on the model;
     image: [height, width, channels] of the images that the model takes;
     grid: [rows, columns] of the patches to mask, L in all, in row-major order;
     colors: colors of errors as "#rrggbb", the lowest first;
     examples: Images;
     reconstruct: null, or { strategies: names of the masks, the run's own first (empty: the model
       reconstructs whole images, and there is nothing to mask); ratios: ascending, in [0, 1), those
       to choose from; ratio: the run's own, one of these };
     predict: null, or { title };
     nearest: null, or { text: what is searched };
     absent: { title: reason } of what does not apply to this model }
   open(file: Blob) -> Image, resized and cropped as the run does for evaluation
   reconstruct({ image: Image; strategy: one of the names; ratio: one of the ratios; seed: integer
     from 0; hidden: L booleans of a mask made by hand, which replaces strategy, ratio and seed, or
     null }) -> { hidden: L booleans; pictures: Pictures in display order, labeled as the figures of
     the project; errors: null, or L numbers, null where a patch was visible; measure: what errors
     are, a text }
   predict(image: Image) -> { rows: [{ name, text, share: number in [0, 1], or null }], the best
     first; pictures: Pictures; classes: [{ name, color }], a legend of the pictures }
   nearest(image: Image) -> [{ name, text, picture: Picture }], the nearest first

   Image: { name, pixels: Uint8Array [height * width * channels] }
   Picture: { label, width, height, pixels: Uint8Array [height * width * 3] } */
import { backend } from "./backend.js";

const BY_HAND = "by hand";
const SMALL = 128; /* Pixels of images up to this side are shown as squares. */
const $ = (id) => document.getElementById(id);
const MOST = 4096; /* Patches of a finer grid are too small to click on. */
const state = { info: null, image: null, hidden: [], cursor: 0, brush: null, turn: 0, pending: 0,
  latest: {} };

/* An element with attributes and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/* Draws pixels [height, width, channels]; of other than three channels the first is shown. */
function paint(canvas, { width, height, pixels }, label) {
  const channels = pixels.length / (width * height);
  const data = new ImageData(width, height);
  for (let place = 0; place < width * height; place++)
    for (let color = 0; color < 4; color++)
      data.data[4 * place + color] = color === 3 ? 255
        : pixels[channels * place + (channels === 3 ? color : 0)];
  canvas.width = width;
  canvas.height = height;
  canvas.classList.toggle("blocky", Math.max(width, height) <= SMALL);
  canvas.getContext("2d").putImageData(data, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
}

const drawn = (picture, label) => paint(make("canvas"), picture, label);
const figure = (canvas, text) => make("figure", {}, canvas, make("figcaption", {}, text));
const asPicture = ({ pixels }) => {
  const [height, width] = state.info.image;
  return { height, width, pixels };
};

/* The left, top, width and height of a patch, in pixels of an image. */
function box(patch) {
  const [height, width] = state.info.image;
  const [rows, columns] = state.info.grid;
  return [(patch % columns) * (width / columns), Math.floor(patch / columns) * (height / rows),
    width / columns, height / rows];
}

/* The image in gray under the colors of the errors of its patches. */
function errorMap(errors) {
  const { colors } = state.info;
  const canvas = drawn(asPicture(state.image), "Error of each masked patch");
  const pen = canvas.getContext("2d");
  pen.globalCompositeOperation = "saturation";
  pen.fillStyle = "hsl(0 0% 50%)";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.globalCompositeOperation = "source-over";
  const highest = Math.max(...errors.filter((error) => error !== null), Number.MIN_VALUE);
  pen.globalAlpha = 0.8;
  errors.forEach((error, patch) => {
    if (error === null) return;
    pen.fillStyle = colors[Math.round((error / highest) * (colors.length - 1))];
    pen.fillRect(...box(patch));
  });
  return { canvas, highest };
}

/* Shows a message about what failed, or none. */
function report(error) {
  $("problem").hidden = !error;
  $("problem").textContent = error ? error.message : "";
}

const hiddenCount = () => state.hidden.filter(Boolean).length;
const byHand = () => $("strategy").value === BY_HAND;

/* Shows which patches are hidden. */
function drawMask() {
  [...$("grid").children].forEach((button, patch) => {
    button.setAttribute("aria-pressed", Boolean(state.hidden[patch]));
    button.tabIndex = patch === state.cursor ? 0 : -1;
  });
  const ratio = state.info.reconstruct.ratios[$("ratio").value];
  const percent = Math.round(100 * (byHand() ? hiddenCount() / state.hidden.length : ratio));
  $("share").textContent = `${percent}%, ${hiddenCount()} of ${state.hidden.length} patches`;
  $("ratio").setAttribute("aria-valuetext", $("share").textContent);
  for (const id of ["ratio", "seed", "another"]) $(id).disabled = byHand();
}

/* Asks for a reconstruction under the mask that is chosen, and shows it. */
async function reconstruct() {
  const { image, info } = state;
  const hand = byHand();
  if (hand) drawMask();
  const { hidden, pictures, errors, measure } = await backend.reconstruct({
    image,
    strategy: hand ? null : $("strategy").value,
    ratio: hand ? null : info.reconstruct.ratios[$("ratio").value],
    seed: Math.max(0, Math.trunc(Number($("seed").value))) || 0,
    hidden: hand ? [...state.hidden] : null,
  });
  return () => {
    if (!byHand() && hidden.length) state.hidden = hidden;
    if (info.reconstruct.strategies.length) drawMask();
    const figures = pictures.map((picture) => figure(drawn(picture, picture.label), picture.label));
    const legend = $("reconstruct").querySelector(".legend");
    legend.hidden = errors === null;
    if (errors !== null) {
      const { canvas, highest } = errorMap(errors);
      figures.push(figure(canvas, "error of each masked patch"));
      const bar = make("i");
      bar.style.background = `linear-gradient(to right, ${info.colors.join(",")})`;
      legend.replaceChildren("0", bar, highest.toPrecision(3), make("span", {}, measure));
    }
    $("reconstruct").querySelector(".pictures").replaceChildren(...figures);
  };
}

/* Asks for the prediction, and shows it. */
async function predict() {
  const { rows, pictures, classes } = await backend.predict(state.image);
  return () => {
    $("predict").querySelector(".rows").replaceChildren(...rows.map(({ name, text, share }) => {
      const bar = make("i");
      bar.style.width = `${100 * (share ?? 0)}%`;
      const track = make("span", { class: "track" }, bar);
      track.hidden = share === null;
      return make("div", {}, make("span", {}, name), track, make("span", {}, text));
    }));
    $("predict").querySelector(".pictures").replaceChildren(
      ...pictures.map((picture) => figure(drawn(picture, picture.label), picture.label)));
    $("predict").querySelector(".classes").replaceChildren(...classes.map(({ name, color }) => {
      const swatch = make("i");
      swatch.style.background = color;
      return make("li", {}, swatch, name);
    }));
  };
}

/* Asks for the nearest images, and shows them. */
async function nearest() {
  const found = await backend.nearest(state.image);
  return () => $("nearest").querySelector(".pictures").replaceChildren(
    ...found.map(({ name, text, picture }) => figure(drawn(picture, name), `${name}: ${text}`)));
}

/* Runs some of the functions above. An answer is not shown if the same was asked again meanwhile. */
async function update(...functions) {
  const turn = ++state.turn;
  const started = performance.now();
  const applies = functions.filter((one) => state.info[one.name]);
  for (const { name } of applies) state.latest[name] = turn;
  state.pending++;
  document.body.setAttribute("aria-busy", "true");
  $("status").textContent = "Computing.";
  const answers = await Promise.allSettled(applies.map(async (one) => {
    const current = () => state.latest[one.name] === turn;
    const show = await one().catch((error) => {
      if (current()) throw error;
    });
    if (show && current()) show();
  }));
  const failed = answers.find(({ status }) => status === "rejected");
  report(failed && failed.reason);
  if (--state.pending) return;
  const seconds = ((performance.now() - started) / 1000).toFixed(2);
  $("status").textContent = failed ? "" : `Computed in ${seconds} s.`;
  document.body.setAttribute("aria-busy", "false");
  document.body.dataset.turn = turn;
}

/* Shows an image and all about it. */
function choose(image) {
  state.image = image;
  const name = image.name || "image";
  $("name").textContent = name;
  paint($("photo"), asPicture(image), name);
  [...$("examples").children].forEach((button, number) =>
    button.setAttribute("aria-pressed", state.info.examples[number] === image));
  return update(reconstruct, predict, nearest);
}

/* Opens the user's file. */
async function open(file) {
  if (!file) return;
  $("status").textContent = "Reading the image.";
  try {
    await choose(await backend.open(file));
  } catch (error) {
    $("status").textContent = "";
    report(error);
  }
}

/* Waits for a pause between changes. */
let timer = 0;
function later() {
  clearTimeout(timer);
  timer = setTimeout(() => update(reconstruct), 150);
}

/* Goes over to a mask made by hand, beginning with the one that is shown. */
function change(edit) {
  const before = [...state.hidden];
  edit(state.hidden);
  if (!state.hidden.some((hidden) => !hidden)) {
    state.hidden = before;
    report(new Error("leave at least one patch visible"));
    return;
  }
  report(null);
  $("strategy").value = BY_HAND;
  drawMask();
  later();
}

/* The patches of the image as buttons: click, drag, or arrow keys and the space bar. */
function buildGrid() {
  const [rows, columns] = state.info.grid;
  const grid = $("grid");
  grid.setAttribute("aria-label", "Patches of the image: arrow keys move, space masks");
  grid.style.gridTemplate = `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)`;
  grid.replaceChildren(...Array.from({ length: rows * columns }, (_, patch) => {
    const place = `row ${Math.floor(patch / columns) + 1}, column ${(patch % columns) + 1}`;
    return make("button", { type: "button", "aria-label": `Mask the patch in ${place}` });
  }));
  const buttons = [...grid.children];
  const at = (event) => buttons.indexOf(document.elementFromPoint(event.clientX, event.clientY));
  const brush = (patch) => {
    if (patch < 0 || Boolean(state.hidden[patch]) === state.brush) return;
    state.cursor = patch;
    change((hidden) => { hidden[patch] = state.brush; });
  };
  grid.addEventListener("pointerdown", (event) => {
    const patch = at(event);
    if (patch < 0 || event.button) return;
    event.preventDefault();
    state.brush = !state.hidden[patch];
    brush(patch);
    buttons[patch].focus();
  });
  grid.addEventListener("pointermove", (event) => {
    if (state.brush !== null && event.buttons) brush(at(event));
  });
  for (const name of ["pointerup", "pointercancel"])
    window.addEventListener(name, () => { state.brush = null; });
  grid.addEventListener("click", (event) => {
    /* Of the keyboard or of assistive technology; of the pointer it is done. */
    if (event.detail) return;
    const patch = buttons.indexOf(event.target);
    state.brush = !state.hidden[patch];
    brush(patch);
    state.brush = null;
  });
  grid.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const row = Math.floor(state.cursor / columns) + steps[event.key][0];
    const column = (state.cursor % columns) + steps[event.key][1];
    if (row < 0 || row >= rows || column < 0 || column >= columns) return;
    state.cursor = row * columns + column;
    drawMask();
    buttons[state.cursor].focus();
  });
}

/* Shows the controls of the mask, if the model reconstructs masked images. */
function buildMask({ strategies, ratios, ratio }) {
  $("mask").hidden = !strategies.length;
  if (!strategies.length) return;
  state.hidden = Array(state.info.grid[0] * state.info.grid[1]).fill(false);
  const clickable = state.hidden.length <= MOST;
  $("strategy").replaceChildren(...strategies.concat(clickable ? BY_HAND : []).map((name) =>
    make("option", { value: name }, name)));
  $("ratio").max = ratios.length - 1;
  $("ratio").value = ratios.indexOf(ratio);
  if (clickable) buildGrid();
  for (const element of document.querySelectorAll(".by-hand")) element.hidden = !clickable;
  drawMask();
  for (const id of ["strategy", "ratio", "seed"])
    $(id).addEventListener("input", () => { drawMask(); later(); });
  $("another").addEventListener("click", () => {
    $("seed").value = Math.max(0, Math.trunc(Number($("seed").value))) + 1;
    update(reconstruct);
  });
  $("show").addEventListener("click", () => change((hidden) => hidden.fill(false)));
  $("invert").addEventListener("click", () =>
    change((hidden) => hidden.forEach((one, patch) => { hidden[patch] = !one; })));
}

async function start() {
  const info = await backend.info();
  state.info = info;
  document.title = info.title;
  $("title").textContent = info.title;
  $("facts").textContent = info.facts;
  document.documentElement.style.setProperty("--ratio", `${info.image[1]} / ${info.image[0]}`);
  if (info.reconstruct) buildMask(info.reconstruct);
  for (const name of ["reconstruct", "predict", "nearest"]) $(name).hidden = !info[name];
  if (info.predict) $("predict-title").textContent = info.predict.title;
  if (info.nearest) $("nearest").querySelector(".hint").textContent = info.nearest.text;
  const absent = Object.entries(info.absent);
  $("absent").hidden = !absent.length;
  $("absent").querySelector("ul").replaceChildren(...absent.map(([title, reason]) =>
    make("li", {}, make("b", {}, title), `: ${reason}.`)));
  $("examples").replaceChildren(...info.examples.map((image) => {
    const button = make("button", { type: "button", title: image.name },
      drawn(asPicture(image), image.name));
    button.addEventListener("click", () => choose(image));
    return button;
  }));
  $("file").addEventListener("change", () => {
    open($("file").files[0]);
    $("file").value = "";
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    open(event.dataTransfer.files[0]);
  });
  document.querySelector("main").hidden = false;
  if (info.examples.length) await choose(info.examples[0]);
  document.body.dataset.ready = "yes";
}

start().catch(report);
