// The model's graphs on LiteRT.js. Everything about the files comes from the manifest.

import { loadLiteRt, loadAndCompile, supportsFeature, Tensor } from "@litertjs/core";

export const SCHEMA = 1;
const ABSENT = -2;
/** Signatures of the decoder in two calls: predicted IoU of a point's masks; the masks themselves. */
const [ATTEND, UPSCALE] = ["attend_1x2", "upscale_1"];
const MAX_THREADS = 8;

/** An error whose message is meant for the person at the screen. */
export class UserError extends Error {}

/** Whether this browser can run WebAssembly SIMD: a function that makes one 128-bit vector. */
export function hasSimd() {
  const code = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  return typeof WebAssembly === "object" && WebAssembly.validate(new Uint8Array(code));
}

/** Checks a parsed manifest and returns it. */
export function checkManifest(manifest) {
  if (manifest?.schema !== SCHEMA) {
    throw new UserError(
      `This model has format ${manifest?.schema}, the page reads format ${SCHEMA}: build page and model with the same version.`,
    );
  }
  return manifest;
}

/** Loads the WebAssembly runtime; returns how many threads it will use. */
export async function loadRuntime(assets) {
  if (!hasSimd()) {
    throw new UserError("This browser lacks WebAssembly SIMD. Chrome 91, Firefox 89, Safari 16.4 or newer have it.");
  }
  const relaxed = await supportsFeature("relaxedSimd");
  const threaded = relaxed && assets.threads && self.crossOriginIsolated && (await supportsFeature("threads"));
  const name = `litert_wasm_${threaded ? "threaded_" : relaxed ? "" : "compat_"}internal`;
  const script = await assets.url(`${name}.js`);
  self.Module = { wasmBinary: await assets.bytes(`${name}.wasm`), mainScriptUrlOrBlob: script.split("#")[0] };
  await loadLiteRt(script);
  return threaded ? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1) : 1;
}

/** Encoder and decoder of one precision. */
export class Model {
  static async load(manifest, precision, assets, threads) {
    const compile = async (part) => {
      const file = manifest.files.find((f) => f.part === part && f.precision === precision && f.engine === "tflite");
      if (!file) throw new UserError(`This page holds no ${precision} ${part}.`);
      const bytes = new Uint8Array(await assets.bytes(file.path));
      await checkFile(file, bytes);
      const options = { accelerator: "wasm", cpuOptions: { numThreads: threads } };
      return { file, graph: await loadAndCompile(bytes, options) };
    };
    return new Model(manifest, await compile("encoder"), await compile("decoder"));
  }

  constructor(manifest, encoder, decoder) {
    this.manifest = manifest;
    this.encoder = encoder;
    this.decoder = decoder;
    this.lowRes = 4 * manifest.grid;
    // The choices are the masks of an ambiguous prompt; token 0, the single mask, is not one of them.
    const tokens = manifest.mask_tokens;
    this.choices = [...tokens.keys()].filter((k) => tokens.length === 1 || tokens[k] !== 0);
    this.signatures = Object.entries(decoder.file.signatures)
      .filter(([name]) => name.startsWith("decode_1x"))
      .map(([name, signature]) => ({ name, signature, points: signature.inputs.point_labels.shape[1] }))
      .sort((a, b) => a.points - b.points);
  }

  /** Gives the graphs' memory back. */
  delete() {
    this.encoder.graph.delete();
    this.decoder.graph.delete();
  }

  /** (size, size, 3) float32 -> embedding. */
  async encode(pixels) {
    const [name, signature] = Object.entries(this.encoder.file.signatures)[0];
    const outputs = await run(this.encoder.graph, name, signature, { image: pixels });
    return outputs.image_embeddings;
  }

  /**
   * Masks of one prompt.
   *
   * @param {Float32Array} embedding from `encode`
   * @param {Array<[number, number, number]>} prompt x, y in the model frame and label of each point
   * @param {Float32Array=} mask low-res logits as mask prompt
   * @returns {Promise<{logits: Float32Array, iou: number}[]>} the masks to choose from, as the manifest orders them
   */
  async decode(embedding, prompt, mask) {
    const chosen = this.signatures.find((s) => s.points >= prompt.length);
    if (!chosen) {
      const slots = this.signatures.at(-1).points;
      throw new UserError(`This model takes at most ${slots - 1} points, or ${slots - 2} and a box: undo one first.`);
    }
    const { low_res_masks: masks, iou_predictions: iou } = await run(this.decoder.graph, chosen.name, chosen.signature, {
      image_embeddings: embedding,
      ...pointInputs(prompt, chosen.points),
      mask_input: mask ?? new Float32Array(this.lowRes ** 2),
      has_mask_input: new Float32Array(1).fill(mask ? 1 : 0),
    });
    return this.#choices(masks, iou);
  }

  /**
   * Predicted IoU of one point's masks, and the masks if any of them is above the threshold: drawing them is a quarter
   * of the decoder's work in INT8, and more in fp32.
   *
   * @param {Float32Array} embedding from `encode`
   * @param {Array<[number, number, number]>} prompt a point and its padding, as for `decode`
   * @param {number} threshold
   * @returns {Promise<{best: number, masks: {logits: Float32Array, iou: number}[]}>} best predicted IoU; masks or none
   */
  async decodeAbove(embedding, prompt, threshold) {
    const { graph, file } = this.decoder;
    const [attend, upscale] = [file.signatures[ATTEND], file.signatures[UPSCALE]];
    const inputs = { image_embeddings: embedding, ...pointInputs(prompt, attend.inputs.point_labels.shape[1]) };
    const { iou_predictions: iou, ...found } = await run(graph, ATTEND, attend, inputs);
    const best = Math.max(...this.choices.map((k) => iou[k]));
    if (best <= threshold) return { best, masks: [] };
    const { low_res_masks: masks } = await run(graph, UPSCALE, upscale, found);
    return { best, masks: this.#choices(masks, iou) };
  }

  #choices(masks, iou) {
    const area = this.lowRes ** 2;
    return this.choices.map((k) => ({ logits: masks.subarray(k * area, (k + 1) * area), iou: iou[k] }));
  }
}

/** Coordinates and labels of one prompt, filled up with absent points. */
function pointInputs(prompt, slots) {
  const coords = new Float32Array(2 * slots);
  const labels = new Float32Array(slots).fill(ABSENT);
  prompt.forEach(([x, y, label], n) => {
    coords.set([x, y], 2 * n);
    labels[n] = label;
  });
  return { point_coords: coords, point_labels: labels };
}

/** Runs one signature; copies the outputs out of the engine's memory. */
async function run(graph, name, signature, values) {
  const tensors = {};
  for (const [key, { shape }] of Object.entries(signature.inputs)) tensors[key] = new Tensor(values[key], shape);
  let results = {};
  try {
    results = await graph.run(name, tensors);
    return Object.fromEntries(Object.entries(results).map(([key, tensor]) => [key, tensor.toTypedArray().slice()]));
  } finally {
    for (const tensor of [...Object.values(tensors), ...Object.values(results)]) tensor.delete();
  }
}

async function checkFile(file, bytes) {
  if (bytes.length !== file.size_bytes) {
    throw new UserError(`${file.path} has ${bytes.length} bytes, the manifest says ${file.size_bytes}: reload the page.`);
  }
  if (!self.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== file.sha256) throw new UserError(`${file.path} is damaged: its SHA-256 is not the manifest's. Reload the page.`);
}
