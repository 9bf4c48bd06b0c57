// Removes small islands of a mask and fills its small holes at low resolution: `clean_mask` of the Python runtime.

/** Size of a logit that changes sides although it is 0. */
const LEAST_LOGIT = 1e-3;

/**
 * @param {Float32Array} logits (side, side); not changed
 * @param {{islands: number, holes: number}} cleaning smallest shares of the mask's area; 0 changes nothing
 * @param {{width: number, height: number, side: number}} seen the part that shows the photograph
 * @returns {Float32Array} the same array if nothing was cleaned, else a changed copy
 */
export function cleanMask(logits, { islands, holes }, { width, height, side }) {
  if (!islands && !holes) return logits;
  const mask = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) mask[y * width + x] = logits[y * side + x] > 0 ? 1 : 0;
  const area = mask.reduce((sum, value) => sum + value, 0);
  if (!area) return logits;
  const smallHoles = parts(mask, 0, width, height).filter((part) => !part.touchesBorder && part.cells.length < holes * area);
  for (const { cells } of smallHoles) for (const cell of cells) mask[cell] = 1;
  const pieces = parts(mask, 1, width, height);
  const largest = pieces.reduce((top, part) => (part.cells.length > top.cells.length ? part : top));
  const smallIslands = pieces.filter((part) => part !== largest && part.cells.length < islands * area);
  if (!smallHoles.length && !smallIslands.length) return logits;
  const cleaned = logits.slice();
  const turn = (found, sign) => {
    for (const { cells } of found) {
      for (const cell of cells) {
        const at = Math.floor(cell / width) * side + (cell % width);
        cleaned[at] = sign * Math.max(Math.abs(logits[at]), LEAST_LOGIT);
      }
    }
  };
  turn(smallHoles, 1);
  turn(smallIslands, -1);
  return cleaned;
}

/** The 4-connected parts of the cells with this value, in the order of their first column. */
function parts(mask, value, width, height) {
  const seen = new Uint8Array(mask.length);
  const found = [];
  for (let x0 = 0; x0 < width; x0++) {
    for (let y0 = 0; y0 < height; y0++) {
      const start = y0 * width + x0;
      if (seen[start] || mask[start] !== value) continue;
      const cells = [start];
      let touchesBorder = false;
      seen[start] = 1;
      for (let next = 0; next < cells.length; next++) {
        const [x, y] = [cells[next] % width, Math.floor(cells[next] / width)];
        touchesBorder ||= x === 0 || y === 0 || x === width - 1 || y === height - 1;
        for (const [u, v] of [[x - 1, y], [x + 1, y], [x, y - 1], [x, y + 1]]) {
          const at = v * width + u;
          if (u < 0 || v < 0 || u >= width || v >= height || seen[at] || mask[at] !== value) continue;
          seen[at] = 1;
          cells.push(at);
        }
      }
      found.push({ cells, touchesBorder });
    }
  }
  return found;
}
