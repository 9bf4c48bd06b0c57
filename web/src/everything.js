// Segment everything: points on a grid, masks that are good and stable, no duplicates. As the Python runtime does it:
// a quarter of the grid on each side first, then the other points that are not in sure regions of good masks (TinySAM);
// of those that a good mask covers, every second one. Boxes have sub-pixel edges, and duplicates are dropped by them.

import { cleanMask } from "./clean.js";

const COARSE = 4;
/** If nothing passes, both thresholds are lowered by these amounts in turn; at last the best of all are shown. */
const RELAX = [0.1, 0.2, 0.4];
/** Points, those of the highest predicted IoU, that are asked again if nothing passes. */
const RESERVE = 16;
const REPORT_EVERY = 16;

/**
 * @param {object} model from engine.js
 * @param {Float32Array} embedding
 * @param {{width: number, height: number, input: [number, number]}} photo its size, and that in the model frame
 * @param {(done: number, total: number) => void} onProgress
 * @param {number} [pointsPerSide] of the grid; the model's own number if not given
 * @returns {Promise<Array<{logits: Float32Array, iou: number, area: number, box: number[]}>>} largest first
 */
export async function segmentEverything(model, embedding, photo, onProgress, pointsPerSide) {
  const settings = { ...model.manifest.everything };
  settings.points_per_side = pointsPerSide ?? settings.points_per_side;
  const { pred_iou_thresh: minIou, stability_score_thresh: minStability } = settings;
  const side = model.lowRes;
  const { input } = photo;
  const { labels, cleaning } = model.manifest;
  const seen = { width: Math.ceil(input[0] / 4), height: Math.ceil(input[1] / 4), side };
  const sure = new Uint16Array(side * side);
  const near = new Uint16Array(side * side);
  const good = [];
  const asked = [];
  const perSide = settings.points_per_side;
  const total = perSide ** 2;
  const agreement = settings.coarse_agreement ?? 1;
  const thinAbove = settings.coarse_thin_thresh ?? Infinity;
  let done = 0;

  const ask = ([x, y], threshold) =>
    model.decodeAbove(embedding, [[x, y, labels.positive], [0, 0, labels.padding]], threshold);
  // Stability is that of the mask as the model gave it; area and box are those of the cleaned one.
  const measured = (masks) => masks.map((mask) => ({ ...mask, stability: stability(mask.logits, seen, settings.stability_score_offset) }));
  const cleaned = (found) =>
    found
      .map(({ logits, ...rest }) => ({ ...rest, logits: cleanMask(logits, cleaning, seen) }))
      .map((one) => ({ ...one, ...describe(one.logits, seen, photo) }))
      .filter((one) => one.area);

  const pass = async (points, mark) => {
    for (const point of points) {
      const { best, masks } = await ask(point, minIou);
      asked.push({ point, best });
      const passed = measured(masks.filter(({ iou }) => iou > minIou)).filter((one) => one.stability >= minStability);
      good.push(...cleaned(passed.map((one) => ({ ...one, logits: one.logits.slice() }))));
      for (const one of mark ? passed : []) {
        one.logits.forEach((value, i) => {
          if (value > settings.coarse_logit_thresh) sure[i]++;
          if (value > thinAbove) near[i]++;
        });
      }
      if (++done % REPORT_EVERY === 0) onProgress(done, total);
    }
  };

  const points = grid(perSide, input);
  const first = firstPass(perSide);
  await pass(points.filter((_, i) => first.has(i)), true);
  const open = ([x, y], i) => {
    const at = Math.min(side - 1, y >> 2) * side + Math.min(side - 1, x >> 2);
    return sure[at] < agreement && !(near[at] >= agreement && (i + Math.floor(i / perSide)) % 2);
  };
  const fine = points.filter((point, i) => !first.has(i) && open(point, i));
  done = total - fine.length;
  await pass(fine, false);

  const distinct = (found) => suppress(found, settings.box_nms_thresh).sort((a, b) => b.area - a.area);
  if (good.length) return distinct(good);
  const reserve = [];
  for (const { point } of asked.sort((a, b) => b.best - a.best).slice(0, RESERVE)) {
    reserve.push(...cleaned(measured((await ask(point, -Infinity)).masks)));
  }
  const relaxed = RELAX.map((step) => reserve.filter((one) => one.iou > minIou - step && one.stability >= minStability - step));
  return distinct(relaxed.find((found) => found.length) ?? reserve);
}

/** Centres of n x n cells, in the model frame. */
function grid(n, [width, height]) {
  const points = [];
  for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) points.push([((x + 0.5) * width) / n, ((y + 0.5) * height) / n]);
  return points;
}

/** Which points of an n x n grid are next to the points of a coarse one. */
function firstPass(n) {
  const coarse = Math.max(1, Math.floor(n / COARSE));
  const places = Array.from({ length: coarse }, (_, i) => Math.max(0, Math.ceil(((i + 0.5) * n) / coarse - 1)));
  return new Set(places.flatMap((y) => places.map((x) => y * n + x)));
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

/** Area in low-res pixels, and box in pixels of the photograph, of the part of a mask that shows it. */
function describe(logits, { width, height, side }, photo) {
  const columns = new Float32Array(width).fill(-Infinity);
  const rows = new Float32Array(height).fill(-Infinity);
  let area = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = logits[y * side + x];
      if (value > 0) area++;
      if (value > columns[x]) columns[x] = value;
      if (value > rows[y]) rows[y] = value;
    }
  }
  if (!area) return { area };
  const [x0, x1, y0, y1] = [firstCrossing(columns), width - firstCrossing(columns.reverse()), firstCrossing(rows), height - firstCrossing(rows.reverse())];
  const across = (place) => Math.min(photo.width, (4 * place * photo.width) / photo.input[0]);
  const down = (place) => Math.min(photo.height, (4 * place * photo.height) / photo.input[1]);
  return { area, box: [across(x0), down(y0), across(x1), down(y1)] };
}

/** Where largest logits, taken as a line between their places, first cross 0; see `sub_pixel_boxes` in Python. */
function firstCrossing(profile) {
  const first = profile.findIndex((value) => value > 0);
  if (first === 0) return 0;
  const [inside, before] = [profile[first], profile[first - 1]];
  return first + 0.5 - inside / (inside - before);
}

/** Greedy non-maximum suppression by box IoU, best predicted IoU first. */
export function suppress(candidates, threshold) {
  const kept = [];
  for (const one of [...candidates].sort((a, b) => b.iou - a.iou)) {
    if (kept.every((other) => boxIou(one.box, other.box) <= threshold)) kept.push(one);
  }
  return kept;
}

function boxIou(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (width * height) / (area(a) + area(b) - width * height);
}
