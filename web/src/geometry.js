// The frames an image lives in. Original: pixels of the upright photograph. Model: the photograph resized so that its
// long side is `imageSize`, in the top left corner of a square. Low-res: the decoder's masks, a quarter of the model.

/** Size [width, height] of the photograph inside the model's input; halves round up, as in SAM. */
export function inputSize(width, height, imageSize) {
  const scale = imageSize / Math.max(width, height);
  return [Math.max(1, Math.floor(width * scale + 0.5)), Math.max(1, Math.floor(height * scale + 0.5))];
}

/** Pixels of the model's input per low-res pixel. */
export const PIXELS_PER_CELL = 4;
/** Logit inside a filled box, and its negative outside. */
export const BOX_LOGIT = 8;

/** The part of a low-res mask, `side` wide, that shows a picture of this size [width, height] in the model. */
export function seenPart([width, height], side) {
  return { width: Math.ceil(width / PIXELS_PER_CELL), height: Math.ceil(height / PIXELS_PER_CELL), side };
}

/**
 * A box as mask prompt: logits by how much of each low-res cell it covers.
 *
 * @param {[number, number]} low top left corner in the model frame
 * @param {[number, number]} high bottom right corner
 * @param {number} side of the low-res mask
 * @returns {Float32Array} (side, side)
 */
export function filledBox(low, high, side) {
  const cover = (axis) =>
    Float32Array.from({ length: side }, (_, i) => {
      const start = i * PIXELS_PER_CELL;
      const overlap = Math.min(high[axis], start + PIXELS_PER_CELL) - Math.max(low[axis], start);
      return Math.max(0, overlap) / PIXELS_PER_CELL;
    });
  const [x, y] = [cover(0), cover(1)];
  return Float32Array.from({ length: side * side }, (_, i) => BOX_LOGIT * (2 * y[Math.floor(i / side)] * x[i % side] - 1));
}

/**
 * Weights of one axis when low-res logits are brought to `length` pixels of the photograph: SAM resizes bilinearly to
 * the model's square, crops, and resizes bilinearly again; both steps together weigh at most four low-res pixels.
 *
 * @param {number} lowRes side of the low-res mask
 * @param {number} imageSize side of the model's input
 * @param {number} input pixels of this axis that show the photograph
 * @param {number} length pixels wanted
 * @param {[number, number]} [span] the part of them that the mask shows; the others have taps of weight 0
 * @returns {{index: Int32Array, weight: Float32Array}} four taps for every pixel
 */
export function upscaleAxis(lowRes, imageSize, input, length, [begin, end] = [0, length]) {
  const index = new Int32Array(4 * length);
  const weight = new Float32Array(4 * length);
  for (let i = 0; i < length; i++) {
    if (i + 0.5 < begin || i + 0.5 > end) continue;
    const outer = taps(i - begin, input / (end - begin), input);
    for (let t = 0; t < 2; t++) {
      const inner = taps(outer.at[t], lowRes / imageSize, lowRes);
      for (let u = 0; u < 2; u++) {
        index[4 * i + 2 * t + u] = inner.at[u];
        weight[4 * i + 2 * t + u] = outer.share[t] * inner.share[u];
      }
    }
  }
  return { index, weight };
}

/** The two source pixels of one destination pixel in a bilinear resize, and their shares (half-pixel centres). */
function taps(i, ratio, length) {
  const source = Math.max(0, (i + 0.5) * ratio - 0.5);
  const low = Math.min(Math.floor(source), length - 1);
  const share = Math.min(1, source - low);
  return { at: [low, Math.min(low + 1, length - 1)], share: [1 - share, share] };
}

/**
 * Bilinear upscaling of low-res logits.
 *
 * @param {Float32Array} logits (lowRes, lowRes)
 * @param {number} lowRes side
 * @param {{index: Int32Array, weight: Float32Array}} columns taps along x
 * @param {{index: Int32Array, weight: Float32Array}} rows taps along y
 * @param {(row: number, values: Float32Array) => void} emit called for every row; the array is reused
 */
export function upscale(logits, lowRes, columns, rows, emit) {
  const width = columns.index.length / 4;
  const wide = new Float32Array(lowRes * width);
  for (let y = 0; y < lowRes; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let t = 4 * x; t < 4 * x + 4; t++) sum += columns.weight[t] * logits[y * lowRes + columns.index[t]];
      wide[y * width + x] = sum;
    }
  }
  const line = new Float32Array(width);
  for (let y = 0; y < rows.index.length / 4; y++) {
    line.fill(0);
    for (let t = 4 * y; t < 4 * y + 4; t++) {
      const start = rows.index[t] * width;
      const share = rows.weight[t];
      if (share !== 0) for (let x = 0; x < width; x++) line[x] += share * wide[start + x];
    }
    emit(y, line);
  }
}
