// Which points of a grid segment-everything asks, and in which order: runtime/everything/points.py in JavaScript.

const COARSE_DIVISOR = 4;
const NEIGHBOUR = 0.3;
const ROUND = 4;

/** Centres of n x n cells, row by row, in the model frame. */
export function grid(n, [width, height]) {
  const points = [];
  for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) points.push([((x + 0.5) * width) / n, ((y + 0.5) * height) / n]);
  return points;
}

/** The coarse grid first, then the points that good masks and asked points left least known, up to a share of all. */
export class Plan {
  #n;
  #agreement;
  #queue;
  #left;
  #known;

  constructor(n, agreement, share) {
    this.#n = n;
    this.#agreement = agreement;
    this.#known = new Float64Array(n * n);
    this.#queue = coarsePoints(n);
    this.#left = Math.max(0, Math.round(share * n * n) - this.#queue.length);
    for (const index of this.#queue) this.#ask(index);
  }

  /** At most so many points are still to come. */
  get left() {
    return this.#queue.length + this.#left;
  }

  /** The next round of points to ask; none if all is done. */
  take() {
    if (this.#queue.length) return this.#queue.splice(0, ROUND);
    const taken = [];
    while (taken.length < ROUND && this.#left) {
      const index = this.#known.reduce((best, value, i, all) => (value < all[best] ? i : best), 0);
      if (this.#known[index] >= 1) break;
      taken.push(index);
      this.#ask(index);
      this.#left--;
    }
    return taken;
  }

  /** Tells that a further good mask covers the points for which `covers(index)` is true. */
  cover(covers) {
    for (let i = 0; i < this.#known.length; i++) if (covers(i)) this.#known[i] += 1 / this.#agreement;
  }

  #ask(index) {
    const [x, y] = [index % this.#n, Math.floor(index / this.#n)];
    for (let i = 0; i < this.#known.length; i++) {
      const squared = ((i % this.#n) - x) ** 2 + (Math.floor(i / this.#n) - y) ** 2;
      this.#known[i] += NEIGHBOUR * Math.exp(-squared / 2);
    }
    this.#known[index] = Infinity;
  }
}

/** Which points of an n x n grid are next to the points of a coarse one. */
function coarsePoints(n) {
  const coarse = Math.max(1, Math.floor(n / COARSE_DIVISOR));
  const places = Array.from({ length: coarse }, (_, i) => Math.max(0, Math.ceil(((i + 0.5) * n) / coarse - 1)));
  return places.flatMap((y) => places.map((x) => y * n + x));
}
