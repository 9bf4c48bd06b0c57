// The worker: holds the model and the photograph, so that the page never waits for them.

import { encode as encodePng } from "fast-png";
import { cleanMask } from "./clean.js";
import { checkManifest, loadRuntime, Model, UserError } from "./engine.js";
import { segmentEverything } from "./everything.js";
import { isFlat } from "./flat.js";
import { filledBox, inputSize, PIXELS_PER_CELL, seenPart, upscale, upscaleAxis } from "./geometry.js";
import { declaredSize } from "./header.js";
import { resizeRgb, STRIP_ROWS } from "./resize.js";
import { copySize, inWindow, maskCorners, windowAround } from "./zoom.js";

const MAX_MEGAPIXELS = 40;
const VIEW_SIDE = 1280;
const PALETTE = [[64, 156, 255], [255, 99, 132], [75, 210, 143], [255, 190, 60], [168, 120, 255], [60, 210, 220], [255, 140, 80], [220, 110, 220]];

let assets, manifest, threads, model, photo;

const commands = {
  /** Loads the runtime and one precision's graphs. */
  async load({ source, files, wanted }) {
    assets ??= files ? inlineAssets(files) : fetchedAssets(source);
    if (!manifest) {
      manifest = await checkManifest(await assets.bytes("manifest.json"));
      threads = await loadRuntime(assets);
    }
    const precisions = [...new Set(manifest.files.map((file) => file.precision))];
    const precision = wanted ?? precisions[0];
    const next = await Model.load(manifest, precision, assets, threads);
    model?.delete();
    model = next;
    const times = photo ? await encode() : {};
    return { threads, precision, precisions, variant: manifest.variant, size: manifest.image_size, ...times };
  },

  /** Takes a photograph (a Blob) and runs the encoder on it. */
  async open({ blob }) {
    const declared = await declaredSize(blob);
    if (declared && tooLarge(...declared)) throw tooLarge(...declared);
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" }).catch(() => {
      throw new UserError("This file is not a picture that the browser can read. JPEG, PNG and WebP work everywhere.");
    });
    const { width, height } = bitmap;
    if (tooLarge(width, height)) {
      bitmap.close();
      throw tooLarge(width, height);
    }
    const input = inputSize(width, height, manifest.image_size);
    const next = { width, height, input, rgb: resizeRgb(rowReader(bitmap), width, height, ...input), copy: await smallCopy(bitmap) };
    photo?.copy.close();
    photo = next;
    return { width, height, ...(await encode()) };
  },

  /**
   * Masks of one object: `points` [x, y, label] and `box` [x0, y0, x1, y1] in pixels of the photograph. `choice` is the mask
   * to show, by default the one that the prompt gets; `raw` leaves small islands and holes.
   */
  async predict({ points, box, choice, raw }) {
    requirePhoto();
    const start = performance.now();
    const { masks, best } = await ask(photo.embedding, wholeView(), points, box);
    photo.masks = raw ? masks : masks.map((mask) => cleaned(mask, photo.input));
    photo.asked = masks;
    const decodeMs = performance.now() - start;
    photo.shown = choice ?? best;
    return { decodeMs, best, iou: masks.map((mask) => mask.iou), overlay: paint([photo.masks[photo.shown]]) };
  },

  /**
   * The mask of a prompt that `predict` has answered, from a window around its box, or around the mask that is shown.
   * Nothing is returned if the object is large or its mask empty.
   */
  async closer({ points, box, raw }) {
    requirePhoto();
    const region = photo.masks && closerRegion(points, box);
    if (!region) return { overlay: null };
    const [scale, size] = [copyScale(), [region[2] - region[0], region[3] - region[1]]];
    const view = { window: region.map((value, place) => value * scale[place % 2]), input: inputSize(...size, manifest.image_size) };
    const rgb = resizeRgb(rowReader(photo.copy, region), ...size, ...view.input);
    const first = photo.asked[photo.shown];
    const whole = { size: [photo.width, photo.height], input: photo.input };
    const prior = box ? undefined : inWindow(first.logits, model.lowRes, whole, view);
    const { masks, best } = await ask(await model.encode(rgb, ...view.input), view, points, box, prior);
    if (!box && !maskCorners(masks[best].logits, seenPart(view.input, model.lowRes))) return { overlay: null };
    const mask = raw ? masks[best] : cleaned(masks[best], view.input);
    // Of clicks the mean of both looks: the first knows how sure it is of the object, the second how well the mask fits it.
    const iou = box ? mask.iou : (first.iou + mask.iou) / 2;
    photo.masks[photo.shown] = { ...mask, view };
    return { iou, overlay: paint([photo.masks[photo.shown]]) };
  },

  /** Masks of everything; with `list` also as run lengths and scores, largest first. A flat picture shows no objects. */
  async everything({ pointsPerSide, list }) {
    requirePhoto();
    const start = performance.now();
    const report = (done, total) => self.postMessage({ progress: done / total });
    const flat = isFlat(photo.rgb, photo);
    const masks = flat ? [] : await segmentEverything(model, photo.embedding, photo, report, pointsPerSide);
    photo.masks = null;
    const everythingMs = performance.now() - start;
    const found = list ? masks.map((mask) => ({ iou: mask.iou, counts: runLengths(mask) })) : undefined;
    return { count: masks.length, flat, everythingMs, found, overlay: masks.length ? paint(masks) : null };
  },

  /** The shown mask at the photograph's size, as 0 and 255. */
  async mask() {
    requirePhoto();
    if (!photo.masks) throw new UserError("No mask is shown: click on an object first.");
    const out = new Uint8Array(photo.width * photo.height);
    render(photo.masks[photo.shown], photo.width, photo.height, (y, line) => {
      for (let x = 0; x < line.length; x++) out[y * photo.width + x] = line[x] > 0 ? 255 : 0;
    });
    return { width: photo.width, height: photo.height, mask: out };
  },

  /** The same as a grey PNG, made without a canvas: phones limit a canvas to fewer pixels than a photograph has. */
  async png() {
    const { width, height, mask } = await commands.mask();
    return { png: encodePng({ width, height, data: mask, channels: 1, depth: 8 }) };
  },

  clear: async () => {
    if (photo) photo.masks = null;
    return {};
  },
};

/** What to tell people about a picture of this size; null if it fits. */
function tooLarge(width, height) {
  const megapixels = (width * height) / 1e6;
  if (megapixels <= MAX_MEGAPIXELS) return null;
  return new UserError(`${width} × ${height} is ${megapixels.toFixed(0)} megapixels, at most ${MAX_MEGAPIXELS} fit: make the picture smaller first.`);
}

async function encode() {
  const [width, height] = photo.input;
  const start = performance.now();
  photo.embedding = await model.encode(photo.rgb, width, height);
  photo.masks = null;
  return { encodeMs: performance.now() - start };
}

/** What windows are cut from; the picture that it is made of is closed. */
async function smallCopy(bitmap) {
  const [width, height] = copySize(bitmap.width, bitmap.height, manifest.image_size);
  if (width === bitmap.width && height === bitmap.height) return bitmap;
  const copy = await createImageBitmap(bitmap, { resizeWidth: width, resizeHeight: height, resizeQuality: "medium" });
  bitmap.close();
  return copy;
}

/** The window to look at, in pixels of the copy; null if a closer look is not worth it. */
function closerRegion(points, box) {
  const { box: boxFactor, mask: maskFactor } = manifest.zoom_in ?? {};
  const factor = box ? boxFactor : maskFactor;
  const corners = box ? [box.slice(0, 2), box.slice(2)] : shownCorners();
  if (!factor || !corners) return null;
  const around = [...corners, ...points.filter(([, , label]) => label === manifest.labels.positive)];
  const [across, down] = copyScale();
  const size = [photo.copy.width, photo.copy.height];
  return windowAround(around.map(([x, y]) => [x / across, y / down]), factor, size, manifest.image_size);
}

/** Pixels of the photograph per pixel of the copy, along x and y: the copy's size is rounded. */
const copyScale = () => [photo.width / photo.copy.width, photo.height / photo.copy.height];

/** Corners of the shown mask in pixels of the photograph; null if it is empty. */
function shownCorners() {
  const size = [photo.width, photo.height];
  const corners = maskCorners(cleaned(photo.asked[photo.shown], photo.input).logits, seenPart(photo.input, model.lowRes));
  return corners?.map((corner) => corner.map((value, axis) => Math.min((value * PIXELS_PER_CELL * size[axis]) / photo.input[axis], size[axis])));
}

/** The whole photograph as a view: its window, and its size in the model. */
const wholeView = () => ({ window: [0, 0, photo.width, photo.height], input: photo.input });

/** The mask without small islands and holes. */
const cleaned = (mask, input) => ({ ...mask, logits: cleanMask(mask.logits, manifest.cleaning, seenPart(input, model.lowRes)) });

/** Masks of a prompt in a view; points outside it are left out. */
function ask(embedding, { window: [x0, y0, x1, y1], input }, points, box, prior) {
  const { labels } = manifest;
  const toModel = (x, y) => [((x - x0) * input[0]) / (x1 - x0), ((y - y0) * input[1]) / (y1 - y0)];
  const inside = points.filter(([x, y]) => x >= x0 && x <= x1 && y >= y0 && y <= y1);
  const prompt = inside.map(([x, y, label]) => [...toModel(x, y), label]);
  // The padding point goes with points: a mask alone has none.
  if (!box) return model.decode(embedding, prompt.length ? [...prompt, [0, 0, labels.padding]] : [], prior);
  const [low, high] = [toModel(box[0], box[1]), toModel(box[2], box[3])];
  const filled = manifest.box_masks ? filledBox(low, high, model.lowRes) : undefined;
  return model.decode(embedding, [...prompt, [...low, labels.box_top_left], [...high, labels.box_bottom_right]], filled);
}

/**
 * Reads rows of a part of a picture, x0, y0, x1, y1, as RGBA. Strip by strip: phones limit a canvas to less than what
 * their cameras take.
 */
function rowReader(bitmap, [x0, y0, x1] = [0, 0, bitmap.width]) {
  const width = x1 - x0;
  const context = new OffscreenCanvas(width, STRIP_ROWS).getContext("2d", { willReadFrequently: true });
  return (y, count) => {
    context.fillRect(0, 0, width, count);
    context.drawImage(bitmap, x0, y0 + y, width, count, 0, 0, width, count);
    return context.getImageData(0, 0, width, count).data;
  };
}

function requirePhoto() {
  if (!photo?.embedding) throw new UserError("Open a photograph first.");
}

/** Emits rows of a mask with the photograph at this size; beside the mask's view they are 0. */
function render({ logits, view = wholeView() }, width, height, emit) {
  const [x0, y0, x1, y1] = view.window;
  const across = [x0, x1].map((x) => (x * width) / photo.width);
  const down = [y0, y1].map((y) => (y * height) / photo.height);
  const columns = upscaleAxis(model.lowRes, manifest.image_size, view.input[0], width, across);
  const rows = upscaleAxis(model.lowRes, manifest.image_size, view.input[1], height, down);
  upscale(logits, model.lowRes, columns, rows, emit);
}

/** Row by row, lengths of alternating runs of background and foreground of a mask at the photograph's size. */
function runLengths(mask) {
  const counts = [0];
  let current = 0;
  render(mask, photo.width, photo.height, (_, line) => {
    for (const value of line) {
      const inside = value > 0 ? 1 : 0;
      if (inside !== current) counts.push(0);
      current = inside;
      counts[counts.length - 1]++;
    }
  });
  return counts;
}

/** Masks as one translucent picture with bright edges, at screen resolution whatever the photograph's; smaller masks lie on top. */
function paint(masks) {
  const scale = VIEW_SIDE / Math.max(photo.width, photo.height);
  const width = Math.max(1, Math.round(photo.width * scale));
  const height = Math.max(1, Math.round(photo.height * scale));
  const image = new ImageData(width, height);
  const out = new Uint32Array(image.data.buffer);
  masks.forEach((mask, number) => {
    const [r, g, b] = PALETTE[number % PALETTE.length];
    const color = (alpha) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
    const [fill, edge] = [color(120), color(255)];
    let above = new Uint8Array(width);
    render(mask, width, height, (y, line) => {
      const inside = Uint8Array.from(line, (value) => (value > 0 ? 1 : 0));
      for (let x = 0; x < width; x++) {
        const isEdge = inside[x] !== above[x] || (x > 0 && inside[x] !== inside[x - 1]);
        if (isEdge && y > 0) out[y * width + x] = edge;
        else if (inside[x]) out[y * width + x] = fill;
      }
      above = inside;
    });
  });
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas.transferToImageBitmap();
}

/** Assets beside the page. */
function fetchedAssets(base) {
  const url = (name) => new URL(name.startsWith("litert_") ? `litert/${name}` : `model/${name}`, base).href;
  return {
    threads: true,
    url: async (name) => url(name),
    bytes: async (name) => {
      const answer = await fetch(url(name));
      if (!answer.ok) throw new UserError(`${name} could not be loaded (${answer.status}).`);
      return answer.arrayBuffer();
    },
  };
}

/** Assets that came inside the page. The suffix makes the loader take the blob for a script file. */
function inlineAssets(files) {
  return {
    threads: false,
    url: async (name) => `${URL.createObjectURL(new Blob([files[name]], { type: "text/javascript" }))}#.js`,
    bytes: async (name) => {
      if (!files[name]) throw new UserError(`${name} is not in this page.`);
      return files[name];
    },
  };
}

let queue = Promise.resolve();
self.onmessage = ({ data: { id, command, ...rest } }) => {
  queue = queue.then(async () => {
    try {
      const result = await commands[command](rest);
      const transfer = [result.overlay, result.mask?.buffer, result.png?.buffer].filter(Boolean);
      self.postMessage({ id, result }, transfer);
    } catch (error) {
      const known = error instanceof UserError;
      self.postMessage({ id, error: known ? error.message : `Something went wrong: ${error.message ?? error}`, known });
    }
  });
};
