// Segment everything, as hierarchical mode of the Python runtime does it (runtime/everything/):
//
// 1. Ask the decoder for all its masks at points of a grid; points.js says which, from what the masks so far cover.
// 2. Keep the masks whose predicted IoU and stability are high enough.
// 3. Of masks of one object, by the IoU of masks, keep the best with the mean logits of all. Clean it.
// 4. If nothing passes, lower both thresholds for the points of the highest predicted IoU.

import { cleanMask } from "./clean.js";
import { seenPart } from "./geometry.js";
import { grid, Plan } from "./points.js";

/** IoU of masks above which the worse of two goes. */
const MASK_NMS_THRESH = 0.8;
/** If nothing passes, both thresholds are lowered by these amounts in turn; at last the best of all are shown. */
const RELAX = [0.1, 0.2, 0.4];
/** Points, those of the highest predicted IoU, that are asked again if nothing passes. */
const RESERVE = 16;
const REPORT_EVERY = 16;
/** Low-res pixels around a mask that its upscaling may draw on. */
const MARGIN = 2;
/** Logit where no mask of a group has anything. */
const OUTSIDE = -8;

/**
 * @param {object} model from engine.js
 * @param {Float32Array} embedding
 * @param {{width: number, height: number, input: [number, number]}} photo its size, and that in the model frame
 * @param {(done: number, total: number) => void} onProgress
 * @param {number} [pointsPerSide] of the grid; the model's own number if not given
 * @returns {Promise<Array<{logits: Float32Array, iou: number, stability: number, area: number, box: number[]}>>} largest
 *   first; area and box (x0, y0, x1, y1) in low-res pixels
 */
export async function segmentEverything(model, embedding, photo, onProgress, pointsPerSide) {
  const settings = model.manifest.everything;
  const { pred_iou_thresh: minIou, stability_score_thresh: minStability } = settings;
  const { labels, cleaning } = model.manifest;
  const { input } = photo;
  const side = model.lowRes;
  const seen = seenPart(input, side);
  const perSide = pointsPerSide ?? settings.points_per_side;
  const points = grid(perSide, input);
  const places = points.map(([x, y]) => Math.min(side - 1, y >> 2) * side + Math.min(side - 1, x >> 2));
  const plan = new Plan(perSide, settings.coarse_agreement, settings.coarse_share);
  const good = [];
  const asked = [];

  const ask = ([x, y], threshold) =>
    model.decodeAbove(embedding, [[x, y, labels.positive], [0, 0, labels.padding]], threshold);
  // The engine's memory is used again by the next call: what stays is copied.
  const measured = (masks) =>
    masks
      .map((mask) => ({ ...mask, stability: stability(mask.logits, seen, settings.stability_score_offset) }))
      .map((mask) => ({ ...mask, logits: mask.logits.slice(), ...describe(mask.logits, seen) }))
      .filter((one) => one.area);

  for (let round = plan.take(); round.length; round = plan.take()) {
    for (const index of round) {
      const { best, masks } = await ask(points[index], minIou);
      asked.push({ point: points[index], best });
      for (const one of measured(masks.filter(({ iou }) => iou > minIou))) {
        if (one.stability < minStability) continue;
        good.push(one);
        plan.cover((i) => one.logits[places[i]] > settings.coarse_logit_thresh);
      }
      if (asked.length % REPORT_EVERY === 0) onProgress(asked.length, asked.length + plan.left);
    }
  }

  const cleaned = (one) => {
    const logits = cleanMask(one.logits, cleaning, seen);
    return logits === one.logits ? one : { ...one, logits, ...describe(logits, seen) };
  };
  const distinct = (found) =>
    groups(found, MASK_NMS_THRESH, side)
      .map((group) => mean(group, seen))
      .map(cleaned)
      .sort((a, b) => b.area - a.area);
  if (good.length) return distinct(good);
  const reserve = [];
  for (const { point } of asked.sort((a, b) => b.best - a.best).slice(0, RESERVE)) {
    reserve.push(...measured((await ask(point, -Infinity)).masks));
  }
  const relaxed = RELAX.map((step) => reserve.filter((one) => one.iou > minIou - step && one.stability >= minStability - step));
  return distinct(relaxed.find((found) => found.length) ?? reserve);
}

/** Stability of the part of a low-res mask that shows the photograph: IoU of the masks at two thresholds. */
function stability(logits, { width, height, side }, offset) {
  let [inner, outer] = [0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = logits[y * side + x];
      if (value > -offset) outer++;
      if (value > offset) inner++;
    }
  }
  return outer ? inner / outer : 0;
}

/** Area and box, in low-res pixels, of the part of a mask that shows the photograph. */
function describe(logits, { width, height, side }) {
  let area = 0;
  const box = [width, height, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (logits[y * side + x] <= 0) continue;
      area++;
      box[0] = Math.min(box[0], x);
      box[1] = Math.min(box[1], y);
      box[2] = Math.max(box[2], x + 1);
      box[3] = Math.max(box[3], y + 1);
    }
  }
  return { area, box };
}

/** Masks that show one object together, the best first: highest product of predicted IoU and stability. */
export function groups(candidates, threshold, side) {
  const found = [];
  for (const one of [...candidates].sort((a, b) => score(b) - score(a))) {
    const same = found.find(([first]) => maskIou(one, first, threshold, side) > threshold);
    if (same) same.push(one);
    else found.push([one]);
  }
  return found;
}

function score({ iou, stability }) {
  return iou * stability;
}

/** The first mask of a group with the mean logits of all, as `_mean` in Python's `candidates.py`. */
function mean(group, seen) {
  if (group.length === 1) return group[0];
  const { side } = seen;
  const all = group.reduce((sum, one) => sum + score(one), 0);
  const logits = new Float32Array(side * side).fill(OUTSIDE);
  const pieces = group.map((one) => piece(one, side));
  const [x0, y0, x1, y1] = [0, 1, 2, 3].map((i) => Math[i < 2 ? "min" : "max"](...pieces.map(({ rect }) => rect[i])));
  for (let y = y0; y < y1; y++) {
    for (let x = x0; x < x1; x++) {
      const at = y * side + x;
      logits[at] = group.reduce((sum, one, k) => {
        const [left, top, right, bottom] = pieces[k].rect;
        const inside = x >= left && x < right && y >= top && y < bottom;
        return sum + (score(one) / all) * (inside ? one.logits[at] : pieces[k].background);
      }, 0);
    }
  }
  const described = describe(logits, seen);
  return described.area ? { ...group[0], logits, ...described } : group[0];
}

/** The part of a mask around its object, and the mean of what is not the object there. */
function piece({ logits, box }, side) {
  const rect = [Math.max(0, box[0] - MARGIN), Math.max(0, box[1] - MARGIN), Math.min(side, box[2] + MARGIN), Math.min(side, box[3] + MARGIN)];
  let [sum, count] = [0, 0];
  for (let y = rect[1]; y < rect[3]; y++) {
    for (let x = rect[0]; x < rect[2]; x++) {
      const value = logits[y * side + x];
      if (value > 0) continue;
      sum += value;
      count++;
    }
  }
  return { rect, background: count ? sum / count : 0 };
}

/** IoU of two masks; 0 if their areas and boxes keep it from exceeding the threshold. */
function maskIou(a, b, threshold, side) {
  const [x0, y0, x1, y1] = [0, 1, 2, 3].map((i) => (i < 2 ? Math.max(a.box[i], b.box[i]) : Math.min(a.box[i], b.box[i])));
  const most = Math.min(Math.max(0, x1 - x0) * Math.max(0, y1 - y0), a.area, b.area);
  if (most <= threshold * (a.area + b.area - most)) return 0;
  let shared = 0;
  for (let y = y0; y < y1; y++) {
    for (let i = y * side + x0; i < y * side + x1; i++) if (a.logits[i] > 0 && b.logits[i] > 0) shared++;
  }
  return shared / (a.area + b.area - shared);
}
