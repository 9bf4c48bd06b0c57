// Looking closer at a small object: `runtime/zoom.py` of the Python runtime. A window around the object is encoded alone.

import { BOX_LOGIT, PIXELS_PER_CELL } from "./geometry.js";

/** Sides of windows above this part of the photograph's long side are not worth a look of their own. */
const LARGEST_WINDOW = 0.8;
/** Pixels are enlarged at most so many times. */
const MOST_MAGNIFIED = 4;
/** Windows are cut from a copy of the photograph that is at most so many times as large as the model's input. */
const COPY_SCALE = 6;

/** Size [width, height] of the copy that windows are cut from: the photograph's, divided by a whole number. */
export function copySize(width, height, imageSize) {
  const factor = Math.ceil(Math.max(width, height) / (COPY_SCALE * imageSize));
  return [Math.ceil(width / factor), Math.ceil(height / factor)];
}

/**
 * A square window around points, moved and cut to fit the picture.
 *
 * @param {number[][]} points x and y in pixels of the picture
 * @param {number} factor side of the window in long sides of the points' box
 * @param {[number, number]} size width and height of the picture
 * @param {number} imageSize side of the model's input
 * @returns {[number, number, number, number] | null} whole pixels x0, y0, x1, y1; null if it is nearly the picture
 */
export function windowAround(points, factor, size, imageSize) {
  const low = [0, 1].map((axis) => Math.min(...points.map((point) => point[axis])));
  const high = [0, 1].map((axis) => Math.max(...points.map((point) => point[axis])));
  const side = Math.max(factor * Math.max(high[0] - low[0], high[1] - low[1]), imageSize / MOST_MAGNIFIED);
  if (side > LARGEST_WINDOW * Math.max(...size)) return null;
  const length = size.map((whole) => Math.min(side, whole));
  const start = [0, 1].map((axis) => Math.min(Math.max((low[axis] + high[axis] - length[axis]) / 2, 0), size[axis] - length[axis]));
  return [...start.map(Math.floor), ...start.map((first, axis) => Math.ceil(first + length[axis]))];
}

/**
 * Corners of what is above 0 in a low-res mask, in low-res pixels: an edge is where the largest logits of a row (or
 * column) and of the next, taken as a straight line, cross 0.
 *
 * @param {Float32Array} logits (side, side)
 * @param {{width: number, height: number, side: number}} seen the part that shows the picture
 * @returns {[[number, number], [number, number]] | null} null if nothing is above 0
 */
export function maskCorners(logits, { width, height, side }) {
  const columns = new Float64Array(width).fill(-Infinity);
  const rows = new Float64Array(height).fill(-Infinity);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = logits[y * side + x];
      columns[x] = Math.max(columns[x], value);
      rows[y] = Math.max(rows[y], value);
    }
  }
  if (!rows.some((value) => value > 0)) return null;
  const [left, upper] = [columns, rows].map(firstCrossing);
  const [right, lower] = [columns, rows].map((profile) => profile.length - firstCrossing(profile.slice().reverse()));
  return [[left, upper], [right, lower]];
}

function firstCrossing(profile) {
  const first = profile.findIndex((value) => value > 0);
  return first === 0 ? 0 : first + 0.5 - profile[first] / (profile[first] - profile[first - 1]);
}

/**
 * A low-res mask of the photograph as mask prompt for a window of it: bilinear at the middle of each cell.
 *
 * @param {Float32Array} logits (side, side)
 * @param {number} side
 * @param {{size: [number, number], input: [number, number]}} whole the photograph: its size, and in the model
 * @param {{window: number[], input: [number, number]}} view x0, y0, x1, y1 in pixels of the photograph; its size in the model
 * @returns {Float32Array} (side, side)
 */
export function inWindow(logits, side, whole, { window, input }) {
  const lengths = [window[2] - window[0], window[3] - window[1]];
  const axes = [0, 1].map((axis) =>
    Array.from({ length: side }, (_, cell) => {
      const there = window[axis] + ((cell + 0.5) * PIXELS_PER_CELL * lengths[axis]) / input[axis];
      const source = (there * whole.input[axis]) / whole.size[axis] / PIXELS_PER_CELL - 0.5;
      const place = Math.min(Math.max(source, 0), side - 1);
      const low = Math.floor(place);
      return { low, high: Math.min(low + 1, side - 1), share: place - low, inside: cell * PIXELS_PER_CELL < input[axis] };
    }),
  );
  const out = new Float32Array(side * side).fill(-BOX_LOGIT);
  axes[1].forEach((row, y) =>
    axes[0].forEach((column, x) => {
      if (!row.inside || !column.inside) return;
      const along = (line) => (1 - column.share) * logits[line * side + column.low] + column.share * logits[line * side + column.high];
      out[y * side + x] = (1 - row.share) * along(row.low) + row.share * along(row.high);
    }),
  );
  return out;
}
