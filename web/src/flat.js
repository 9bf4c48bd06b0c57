// Whether a picture is one colour, but for noise, as the Python runtime decides (`is_flat`, runtime/everything/crops.py): a
// covered lens, a night without light, a blank page. The model answers every click with masks there too, and rates them
// as usual.

/** Long side at which noise and contrast are measured. */
const LOOK_PX = 256;
/** Contrast is that of the means of blocks of so many pixels a side, an eighth as noisy as the pixels themselves. */
const BLOCK_PX = 8;
/** Levels of 255 between the darkest and the brightest block that count as flat without any noise. */
const FLAT_RANGE = 3;
/** Largest standard deviation, in levels, of a flat picture's pixels. */
const FLAT_NOISE = 16;
/** Resizing to the model's input makes neighbours alike: blocks are this much noisier, next to pixels, than in Python. */
const SMOOTHED = 1.5;

/**
 * @param {Uint8Array} rgb the photograph in the model's input
 * @param {{width: number, height: number, input: [number, number]}} photo its size, and that of `rgb`
 */
export function isFlat(rgb, { width, height, input }) {
  const shrink = Math.min(1, LOOK_PX / Math.max(width, height));
  const size = [width, height].map((side, axis) => Math.min(input[axis], Math.max(1, Math.round(side * shrink))));
  const small = shrunk(rgb, ...input, ...size);
  const noise = Math.max(...[0, 1, 2].map((band) => deviation(small, band)));
  const blocks = shrunk(small, ...size, ...size.map((side) => Math.max(1, Math.floor(side / BLOCK_PX))));
  const contrast = Math.max(...[0, 1, 2].map((band) => range(blocks, band)));
  return noise <= FLAT_NOISE && contrast <= Math.max(FLAT_RANGE, SMOOTHED * noise);
}

/** A smaller RGB picture: each pixel is the mean of those whose centres lie in it. */
function shrunk(rgb, width, height, newWidth, newHeight) {
  const sums = new Float64Array(newWidth * newHeight * 3);
  const counts = new Uint32Array(newWidth * newHeight);
  for (let y = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * newHeight) / height) * newWidth;
    for (let x = 0; x < width; x++) {
      const cell = row + Math.floor(((x + 0.5) * newWidth) / width);
      counts[cell]++;
      for (let band = 0; band < 3; band++) sums[3 * cell + band] += rgb[3 * (y * width + x) + band];
    }
  }
  return Uint8Array.from(sums, (sum, i) => Math.round(sum / counts[Math.floor(i / 3)]));
}

function deviation(rgb, band) {
  let [count, sum, squares] = [0, 0, 0];
  for (let i = band; i < rgb.length; i += 3) {
    count++;
    sum += rgb[i];
    squares += rgb[i] * rgb[i];
  }
  return Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2));
}

function range(rgb, band) {
  let [low, high] = [255, 0];
  for (let i = band; i < rgb.length; i += 3) {
    low = Math.min(low, rgb[i]);
    high = Math.max(high, rgb[i]);
  }
  return high - low;
}
