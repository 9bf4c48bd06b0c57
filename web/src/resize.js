// Bilinear resizing with antialiasing, as the Python runtime's Pillow does it, bit for bit: a triangle filter as wide
// as the reduction, coefficients in fixed point, one rounding to 8 bits after each axis.

const PRECISION_BITS = 22;
/** Rows of the source that are held at a time. */
export const STRIP_ROWS = 64;

/** For every output pixel its first source pixel, and the fixed-point coefficients from there. */
function coefficients(source, target) {
  const scale = source / target;
  const support = Math.max(scale, 1);
  const taps = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(target);
  const count = new Int32Array(target);
  const values = new Int32Array(target * taps);
  for (let i = 0; i < target; i++) {
    const center = (i + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(source, Math.trunc(center + support + 0.5));
    const weights = [];
    for (let x = begin; x < end; x++) weights.push(Math.max(0, 1 - Math.abs((x - center + 0.5) / support)));
    const sum = weights.reduce((a, b) => a + b, 0);
    first[i] = begin;
    count[i] = weights.length;
    weights.forEach((w, k) => (values[i * taps + k] = Math.trunc(0.5 + (w / sum) * (1 << PRECISION_BITS))));
  }
  return { first, count, values, taps };
}

const clip = (sum) => Math.min(255, Math.max(0, sum >> PRECISION_BITS));

/**
 * Resize an RGBA image, dropping alpha.
 *
 * @param {(y: number, count: number) => Uint8ClampedArray} read RGBA (count, width, 4) of the rows from y on
 * @returns {Uint8Array} RGB (newHeight, newWidth, 3)
 */
export function resizeRgb(read, width, height, newWidth, newHeight) {
  const horizontal = coefficients(width, newWidth);
  const narrow = new Uint8Array(height * newWidth * 3);
  const half = 1 << (PRECISION_BITS - 1);
  let rgba;
  for (let y = 0; y < height; y++) {
    const row = y % STRIP_ROWS;
    if (row === 0) rgba = read(y, Math.min(STRIP_ROWS, height - y));
    for (let x = 0; x < newWidth; x++) {
      let [r, g, b] = [half, half, half];
      let from = 4 * (row * width + horizontal.first[x]);
      for (let k = 0; k < horizontal.count[x]; k++, from += 4) {
        const w = horizontal.values[x * horizontal.taps + k];
        r += rgba[from] * w;
        g += rgba[from + 1] * w;
        b += rgba[from + 2] * w;
      }
      const to = 3 * (y * newWidth + x);
      narrow[to] = clip(r);
      narrow[to + 1] = clip(g);
      narrow[to + 2] = clip(b);
    }
  }
  return resizeRows(narrow, newWidth * 3, height, newHeight, half);
}

function resizeRows(narrow, stride, height, newHeight, half) {
  const vertical = coefficients(height, newHeight);
  const out = new Uint8Array(newHeight * stride);
  const sums = new Int32Array(stride);
  for (let y = 0; y < newHeight; y++) {
    sums.fill(half);
    for (let k = 0; k < vertical.count[y]; k++) {
      const w = vertical.values[y * vertical.taps + k];
      const from = (vertical.first[y] + k) * stride;
      for (let x = 0; x < stride; x++) sums[x] += narrow[from + x] * w;
    }
    for (let x = 0; x < stride; x++) out[y * stride + x] = clip(sums[x]);
  }
  return out;
}

/**
 * The model's input: normalized, zeros right and below.
 *
 * @param {Uint8Array} rgb (height, width, 3)
 * @returns {Float32Array} (size, size, 3)
 */
export function normalize(rgb, width, height, size, mean, std) {
  const out = new Float32Array(size * size * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) {
        out[3 * (y * size + x) + c] = (rgb[3 * (y * width + x) + c] - mean[c]) / std[c];
      }
    }
  }
  return out;
}

/**
 * The input of a file that normalizes by itself: pixels, and a fourth channel that is 1 on the photograph.
 *
 * @param {Uint8Array} rgb (height, width, 3)
 * @param {typeof Uint8Array | typeof Float32Array} Kind
 * @returns {Uint8Array | Float32Array} (size, size, 4), zeros right and below
 */
export function withInside(rgb, width, height, size, Kind) {
  const out = new Kind(size * size * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [from, to] = [3 * (y * width + x), 4 * (y * size + x)];
      for (let c = 0; c < 3; c++) out[to + c] = rgb[from + c];
      out[to + 3] = 1;
    }
  }
  return out;
}
