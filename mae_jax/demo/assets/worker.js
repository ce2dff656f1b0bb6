/* Runs the model beside the page, which stays responsive: messages { id, feeds: name -> [type, data,
   shape] } are answered by { id, outputs: name -> data } or { id, error }. */
import * as ort from "./ort/ort.js";

ort.env.wasm.numThreads = 1; /* More would need special HTTP headers. */
ort.env.wasm.wasmPaths = {
  wasm: new URL("./ort/ort-wasm-simd-threaded.wasm", import.meta.url).href,
};
const loading = ort.InferenceSession.create(
  new URL("./model.onnx", import.meta.url).href, { executionProviders: ["wasm"] });
loading.catch(() => {}); /* Every message reports it. */

async function run(feeds) {
  const session = await loading;
  const tensors = Object.fromEntries(session.inputNames.map((name) =>
    [name, new ort.Tensor(...feeds[name])]));
  const found = await session.run(tensors);
  return Object.fromEntries(session.outputNames.map((name) => [name, found[name].data]));
}

let turn = Promise.resolve(); /* A session computes one answer at a time. */
onmessage = ({ data: { id, feeds } }) => {
  turn = turn.then(() => run(feeds)).then(
    (outputs) => postMessage({ id, outputs }),
    (error) => postMessage({ id, error: String(error?.message ?? error) }));
};
