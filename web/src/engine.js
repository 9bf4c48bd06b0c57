// The model's graphs on LiteRT.js. Everything about the files comes from the manifest.

import { loadLiteRt, loadAndCompile, supportsFeature, Tensor } from "@litertjs/core";
import { normalize, withInside } from "./resize.js";

export const SCHEMA = 2;
const STABILITY_OFFSET = 1;
const STEADY_LEAD = 0.06;
/**
 * Signatures of the decoder in steps: what all points of a photograph share; predicted IoU of a point's masks; the masks
 * themselves.
 */
const STEPS = ["prepare", "attend_1x2", "upscale_1"];
const [PREPARE, ATTEND, UPSCALE] = STEPS;
const MAX_THREADS = 8;

/** An error whose message is meant for the person at the screen. */
export class UserError extends Error {}

/** Whether this browser can run WebAssembly SIMD: a function that makes one 128-bit vector. */
export function hasSimd() {
  const code = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  return typeof WebAssembly === "object" && WebAssembly.validate(new Uint8Array(code));
}

/** Parses and checks a manifest (bytes). */
export async function checkManifest(bytes) {
  const text = new TextDecoder().decode(bytes);
  const manifest = JSON.parse(text);
  if (manifest?.schema !== SCHEMA) {
    throw new UserError(
      `This model has format ${manifest?.schema}, the page reads format ${SCHEMA}: build page and model with the same version.`,
    );
  }
  const stated = manifest.content_sha256;
  const digest = await sha256(new TextEncoder().encode(text.replace(stated, "0".repeat(64))));
  if (digest && digest !== stated) throw new UserError("The model's manifest is damaged. Reload the page.");
  return manifest;
}

/** Hexadecimal SHA-256; undefined where the page may not compute one (served without https). */
async function sha256(bytes) {
  if (!self.crypto?.subtle) return undefined;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
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
      const lacking = part === "decoder" ? STEPS.filter((name) => !file.signatures[name]) : [];
      if (lacking.length) throw new UserError(`${file.path} lacks ${lacking.join(" and ")}: export the model again.`);
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
    // The masks of an ambiguous prompt; token 0, the single mask, is not one of them.
    const tokens = manifest.mask_tokens;
    this.ambiguous = [...tokens.keys()].filter((k) => tokens.length === 1 || tokens[k] !== 0);
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

  /** Photograph that was resized to the model's input, uint8 (height, width, 3) -> embedding. */
  async encode(rgb, width, height) {
    const { signatures, input } = this.encoder.file;
    const [name, signature] = Object.entries(signatures)[0];
    const { image_size: size, mean, std } = this.manifest;
    const Kind = signature.inputs.image.dtype === "uint8" ? Uint8Array : Float32Array;
    const image = input === "pixels" ? withInside(rgb, width, height, size, Kind) : normalize(rgb, width, height, size, mean, std);
    return (await run(this.encoder.graph, name, signature, { image })).image_embeddings;
  }

  /**
   * Masks of one prompt.
   *
   * @param {Float32Array} embedding from `encode`
   * @param {Array<[number, number, number]>} prompt x, y in the model frame and label of each point
   * @param {Float32Array=} mask low-res logits as mask prompt
   * @returns {Promise<{masks: {logits: Float32Array, iou: number}[], best: number}>} masks to choose from, as the manifest
   *   orders them, and which of them the prompt gets
   */
  async decode(embedding, prompt, mask) {
    const chosen = this.signatures.find((s) => s.points >= prompt.length);
    if (!chosen) {
      const slots = this.signatures.at(-1).points;
      throw new UserError(`This model takes at most ${slots - 1} points, or ${slots - 2} and a box: undo one first.`);
    }
    const { low_res_masks: masks, iou_predictions: iou } = await run(this.decoder.graph, chosen.name, chosen.signature, {
      image_embeddings: embedding,
      ...this.#pointInputs(prompt, chosen.points),
      mask_input: mask ?? new Float32Array(this.lowRes ** 2),
      has_mask_input: new Float32Array(1).fill(mask ? 1 : 0),
    });
    const { mask_choice: rule, mask_tokens: tokens, labels } = this.manifest;
    const present = prompt.filter(([, , label]) => ![labels.padding, labels.absent].includes(label));
    const one = present.length === 1 && [labels.positive, labels.negative].includes(present[0][2]) && !mask;
    const places = one ? offeredMasks(rule, tokens) : [...tokens.keys()];
    const found = this.#choices(masks, iou, places);
    return { masks: found, best: places.indexOf(chooseMask(rule, tokens, iou, one, this.#choices(masks, iou, [...tokens.keys()]))) };
  }

  /**
   * Predicted IoU of one point's masks, and all of them if an ambiguous one is above the threshold: drawing them is a
   * quarter of the decoder's work in INT8, and more in fp32.
   *
   * @param {Float32Array} embedding from `encode`
   * @param {Array<[number, number, number]>} prompt a point and its padding, as for `decode`
   * @param {number} threshold
   * @returns {Promise<{best: number, masks: {logits: Float32Array, iou: number}[]}>} best predicted IoU; masks or none
   */
  async decodeAbove(embedding, prompt, threshold) {
    const { graph, file } = this.decoder;
    const [attend, upscale] = [file.signatures[ATTEND], file.signatures[UPSCALE]];
    const points = this.#pointInputs(prompt, attend.inputs.point_labels.shape[1]);
    const inputs = { ...(await this.#prepare(embedding)), ...points };
    const { iou_predictions: iou, ...found } = await run(graph, ATTEND, attend, inputs);
    const best = Math.max(...iou);
    if (Math.max(...this.ambiguous.map((k) => iou[k])) <= threshold) return { best, masks: [] };
    const { low_res_masks: masks } = await run(graph, UPSCALE, upscale, found);
    return { best, masks: this.#choices(masks, iou, [...iou.keys()]) };
  }

  /** What the points of one photograph share, computed for the first of them and kept until the next photograph. */
  async #prepare(embedding) {
    if (this.prepared?.embedding !== embedding) {
      const { graph, file } = this.decoder;
      const shared = await run(graph, PREPARE, file.signatures[PREPARE], { image_embeddings: embedding });
      this.prepared = { embedding, shared };
    }
    return this.prepared.shared;
  }

  /** Coordinates and labels of one prompt, filled up with absent points. */
  #pointInputs(prompt, slots) {
    const coords = new Float32Array(2 * slots);
    const labels = new Float32Array(slots).fill(this.manifest.labels.absent);
    prompt.forEach(([x, y, label], n) => {
      coords.set([x, y], 2 * n);
      labels[n] = label;
    });
    return { point_coords: coords, point_labels: labels };
  }

  #choices(masks, iou, places) {
    const area = this.lowRes ** 2;
    return places.map((k) => ({ logits: masks.subarray(k * area, (k + 1) * area), iou: iou[k] }));
  }
}

/**
 * Which mask a prompt gets: `choose_mask` of the Python runtime.
 *
 * @param {string} rule the manifest's `mask_choice`
 * @param {number[]} tokens the manifest's `mask_tokens`
 * @param {Float32Array} iou predicted IoU of each mask
 * @param {boolean} ambiguous whether the prompt is one click and nothing else
 * @param {{logits: Float32Array}[]} masks all of them
 * @returns {number} place in the mask axis
 */
export function chooseMask(rule, tokens, iou, ambiguous, masks) {
  const largest = (places, value) => places.reduce((top, k) => (value(k) > value(top) ? k : top));
  const all = [...tokens.keys()];
  if (rule === "stability") return largest(all, (k) => stability(masks[k].logits, STABILITY_OFFSET));
  if (["single", "steady"].includes(rule) && !ambiguous && tokens.includes(0)) return tokens.indexOf(0);
  const steadiness = (k) => Math.sqrt(stability(masks[k].logits, STABILITY_OFFSET));
  const score = (k) => iou[k] * steadiness(k) + (tokens[k] === 0 ? STEADY_LEAD : 0);
  return largest(offeredMasks(rule, tokens), rule === "steady" ? score : (k) => iou[k]);
}

/** Places in the mask axis that one click may get. */
function offeredMasks(rule, tokens) {
  const all = [...tokens.keys()];
  const ambiguous = all.filter((k) => tokens[k] !== 0);
  return ["steady", "stability"].includes(rule) || !ambiguous.length ? all : ambiguous;
}

/** Area above `offset` as a part of the area above `-offset`. */
function stability(logits, offset) {
  let [inner, outer] = [0, 0];
  for (const value of logits) {
    if (value > offset) inner++;
    if (value > -offset) outer++;
  }
  return inner / Math.max(1, outer);
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
  const digest = await sha256(bytes);
  if (digest && digest !== file.sha256) throw new UserError(`${file.path} is damaged: its SHA-256 is not the manifest's. Reload the page.`);
}
