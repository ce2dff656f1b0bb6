/* The backend that asks the server which served the page. For its interface see page.js. */
import { fromBase64 } from "./bytes.js";

/* The answer of the server as JSON; an Error with its message if it refuses. */
async function ask(path, parameters = {}, body = undefined) {
  const query = new URLSearchParams(parameters);
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body,
  };
  let response;
  try {
    response = await fetch(`./${path}?${query}`, options);
  } catch {
    throw new Error("the server does not answer: is mae-jax demo still running?");
  }
  const answer = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

let largest = Infinity; /* Bytes of a file that the server reads. */

const withPixels = (one) => ({ ...one, pixels: fromBase64(one.pixels) });

export const backend = {
  async info() {
    const info = await ask("info");
    largest = info.max_bytes;
    return { ...info, examples: info.examples.map(withPixels) };
  },

  async open(file) {
    if (file.size > largest)
      throw new Error(`the file has more than ${largest / 2 ** 20} MB: choose a smaller one`);
    return { name: file.name, ...withPixels(await ask("open", {}, file)) };
  },

  async reconstruct({ image, strategy, ratio, seed, hidden }) {
    const parameters = hidden === null
      ? { strategy, ratio, seed }
      : { hidden: hidden.map(Number).join("") };
    const answer = await ask("reconstruct", parameters, image.pixels);
    return { ...answer, pictures: answer.pictures.map(withPixels) };
  },

  async predict(image) {
    const answer = await ask("predict", {}, image.pixels);
    return { ...answer, pictures: answer.pictures.map(withPixels) };
  },

  async nearest(image) {
    const answer = await ask("nearest", {}, image.pixels);
    return answer.map((one) => ({ ...one, picture: withPixels(one.picture) }));
  },
};
