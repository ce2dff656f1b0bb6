"use strict";
/* Maps to click on: a patch of an image, or the class token, is chosen, and every view shows its
   maps of it. All data are in the page. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const images = [...document.querySelectorAll("#images img")];
  const [rows, columns] = data.grid;
  const count = rows * columns;
  const chosen = { image: 0, patch: data.center, token: false };
  const pickers = [];

  for (const copy of document.querySelectorAll("img[data-image]"))
    copy.src = images[copy.dataset.image].src;
  for (const image of document.images)
    if (image.closest("#images, .tiles") && image.src.startsWith("data:image/png"))
      image.classList.add("blocky");

  /* An element with attributes and children. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  /* The bytes of a compressed array. */
  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  const place = (patch) =>
    `row ${Math.floor(patch / columns) + 1}, column ${(patch % columns) + 1}`;

  /* Draws an image in gray under the colors of its patches, and a frame around one of them. */
  function paint(canvas, image, colors, framed) {
    const [height, width] = data.size;
    canvas.width = 240;
    canvas.height = Math.round((240 * height) / width);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = Math.max(height, width) > 128;
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    pen.globalCompositeOperation = "saturation";
    pen.fillStyle = "hsl(0 0% 50%)";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.globalCompositeOperation = "source-over";
    const edge = (index, parts, length) => Math.round((index * length) / parts);
    const box = (patch) => {
      const row = Math.floor(patch / columns);
      const column = patch % columns;
      const x = edge(column, columns, canvas.width);
      const y = edge(row, rows, canvas.height);
      return [x, y, edge(column + 1, columns, canvas.width) - x,
        edge(row + 1, rows, canvas.height) - y];
    };
    pen.globalAlpha = 0.7;
    colors.forEach((color, patch) => {
      pen.fillStyle = color;
      pen.fillRect(...box(patch));
    });
    pen.globalAlpha = 1;
    if (framed === null) return;
    for (const [color, line] of [["#111", 6], ["#fff", 3]]) {
      pen.strokeStyle = color;
      pen.lineWidth = line;
      pen.strokeRect(...box(framed));
    }
  }

  /* Attention or rollout: one panel for each head. */
  function weights(maps, values, peaks) {
    const [known, blocks, panels, queries] = maps.shape;
    return {
      panels: maps.panels,
      blocks: maps.blocks,
      token: maps.token,
      legend: [data.sequential, maps.low, "largest weight of each map"],
      draw(panel, canvas, block) {
        const image = Math.min(chosen.image, known - 1);
        const token = maps.token && chosen.token;
        const query = token ? 0 : chosen.patch + (maps.token ? 1 : 0);
        const map = ((image * blocks + block) * panels + panel) * queries + query;
        const row = values.subarray(map * count, (map + 1) * count);
        const top = row.indexOf(Math.max(...row));
        paint(canvas, images[image], Array.from(row, (shade) => data.sequential[shade]),
          token ? null : chosen.patch);
        const peak = 100 * (peaks[map] / 255) ** 2;
        const share = peak < 9.5 ? peak.toFixed(1) : peak.toFixed(0);
        const other = image === chosen.image ? "" : `, of ${data.titles[image]}`;
        return [`${maps.panels[panel]}: max ${share}%${other}`,
          `${maps.panels[panel]} reads most at ${place(top)}, ${share}%`];
      },
    };
  }

  /* Similarity: one panel for each image. */
  function vectors(maps, values) {
    const signed = values.map((bytes) => new Int8Array(bytes.buffer));
    const vector = (image, patch, kind) => {
      const { scales } = maps.vectors[kind];
      const start = (image * count + patch) * scales.length;
      return scales.map((scale, index) => scale * signed[kind][start + index]);
    };
    return {
      panels: data.titles,
      blocks: maps.blocks,
      token: false,
      legend: [data.diverging, "-1", "1"],
      draw(panel, canvas, kind) {
        const query = vector(chosen.image, chosen.patch, kind);
        const likeness = Array.from({ length: count }, (_, patch) =>
          vector(panel, patch, kind).reduce((sum, value, index) => sum + value * query[index], 0));
        const last = data.diverging.length - 1;
        const colors = likeness.map((value) =>
          data.diverging[Math.max(0, Math.min(last, Math.round(((value + 1) / 2) * last)))]);
        const own = panel === chosen.image;
        const others = likeness.map((value, patch) =>
          own && patch === chosen.patch ? -2 : value);
        const top = others.indexOf(Math.max(...others));
        paint(canvas, images[panel], colors, own ? chosen.patch : null);
        const best = others[top].toFixed(2);
        return [`${data.titles[panel]}: max ${best}`,
          `${data.titles[panel]} is most similar at ${place(top)}, ${best}`];
      },
    };
  }

  /* Builds the controls and panels of a view. */
  function build(root, source) {
    const stage = make("div", { class: "stage" });
    const photo = make("img", { alt: "" });
    const grid = make("div", { class: "grid", role: "group",
      "aria-label": "Patches of the image: arrow keys move" });
    grid.style.gridTemplate = `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)`;
    const patches = Array.from({ length: count }, (_, patch) => {
      const button = make("button", { type: "button", "aria-label": `patch ${place(patch)}` });
      button.addEventListener("click", () => choose({ patch, token: false }, picker));
      return button;
    });
    grid.append(...patches);
    grid.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const row = Math.floor(chosen.patch / columns) + steps[event.key][0];
      const column = (chosen.patch % columns) + steps[event.key][1];
      if (row < 0 || row >= rows || column < 0 || column >= columns) return;
      choose({ patch: row * columns + column, token: false }, picker);
      patches[chosen.patch].focus();
    });
    stage.append(photo, grid);

    const thumbs = make("div", { class: "thumbs", role: "group", "aria-label": "Images" });
    const buttons = images.map((image, number) => {
      const button = make("button", { type: "button", "aria-label": data.titles[number] },
        make("img", { src: image.src, alt: "", class: image.className }));
      button.addEventListener("click", () => choose({ image: number }, picker));
      return button;
    });
    thumbs.append(...buttons);

    const controls = make("div", { class: "controls" });
    const token = make("button", { type: "button" }, "class token");
    token.addEventListener("click", () => choose({ token: !chosen.token }, picker));
    if (source.token) controls.append(token);
    const select = make("select", { "aria-label": "what the maps are of" },
      ...source.blocks.map((name, number) => make("option", { value: number }, name)));
    select.value = source.blocks.length - 1;
    select.addEventListener("change", () => choose({}, picker));
    if (source.blocks.length > 1) controls.append(make("label", {}, select));

    const panels = source.panels.map(() => {
      const canvas = make("canvas", { role: "img" });
      const caption = make("figcaption");
      return { canvas, caption, figure: make("figure", {}, canvas, caption) };
    });
    const maps = make("div", { class: panels.length > 1 ? "maps" : "maps alone" },
      ...panels.map((panel) => panel.figure));
    const [colors, low, high] = source.legend;
    const bar = make("i");
    bar.style.background = `linear-gradient(to right, ${colors.join(",")})`;
    const legend = make("div", { class: "legend" }, low, bar, high);
    const status = make("p", { class: "status", "aria-live": "polite" });
    root.append(make("div", {}, stage, thumbs, controls, status), make("div", {}, maps, legend));

    const picker = {
      draw(active) {
        photo.src = images[chosen.image].src;
        photo.alt = data.titles[chosen.image];
        photo.className = images[chosen.image].className;
        const onToken = source.token && chosen.token;
        patches.forEach((button, patch) => {
          const here = patch === chosen.patch;
          button.tabIndex = here ? 0 : -1;
          button.setAttribute("aria-pressed", here && !onToken);
        });
        buttons.forEach((button, number) =>
          button.setAttribute("aria-pressed", number === chosen.image));
        token.setAttribute("aria-pressed", onToken);
        const block = Number(select.value);
        const texts = panels.map(({ canvas, caption }, number) => {
          const [short, long] = source.draw(number, canvas, block);
          caption.textContent = short;
          canvas.setAttribute("aria-label", long);
          return long;
        });
        const what = onToken ? "class token" : `patch ${place(chosen.patch)}`;
        const said = `${data.titles[chosen.image]}, ${what}`;
        status.textContent = said + (active && texts.length === 1 ? `. ${texts[0]}.` : "");
      },
    };
    return picker;
  }

  /* Changes what is chosen, and draws all views. */
  function choose(change, active) {
    Object.assign(chosen, change);
    for (const picker of pickers) picker.draw(picker === active);
  }

  async function start() {
    await Promise.all(images.map((image) => image.decode()));
    for (const root of document.querySelectorAll(".picker")) {
      const maps = data.maps[root.dataset.of];
      const source = maps.kind === "vectors"
        ? vectors(maps, await Promise.all(maps.vectors.map(({ values }) => unpacked(values))))
        : weights(maps, await unpacked(maps.values), await unpacked(maps.peaks));
      pickers.push(build(root, source));
    }
    choose({}, null);
    document.body.dataset.ready = "yes";
  }

  start().catch((error) => {
    for (const root of document.querySelectorAll(".picker"))
      root.textContent = `These maps need a newer browser (${error.message}). `
        + "The pictures are beside this page, as PNG files.";
  });
})();
