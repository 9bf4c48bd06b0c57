// The canvas: photograph, mask and prompts; screen coordinates to pixels of the photograph and back.

const DRAG_PX = 6;

export class View {
  photo = null;
  overlay = null;
  points = [];
  box = null;
  #draft = null;
  #frame = 0;

  /** @param {{tool: () => string, onPoint: Function, onBox: Function}} handlers */
  constructor(canvas, handlers) {
    this.canvas = canvas;
    this.handlers = handlers;
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", () => this.#drop());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  /** Draws at the next frame. */
  draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#paint());
  }

  /** Where the photograph lies on the canvas, in CSS pixels. */
  layout() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = Math.min(width / this.photo.width, height / this.photo.height);
    return { scale, left: (width - this.photo.width * scale) / 2, top: (height - this.photo.height * scale) / 2 };
  }

  #toPhoto(event) {
    const rect = this.canvas.getBoundingClientRect();
    const { scale, left, top } = this.layout();
    const x = (event.clientX - rect.left - left) / scale;
    const y = (event.clientY - rect.top - top) / scale;
    return { x, y, inside: x >= 0 && y >= 0 && x <= this.photo.width && y <= this.photo.height };
  }

  #down(event) {
    if (!this.photo || !event.isPrimary) return;
    const at = this.#toPhoto(event);
    if (!at.inside && this.handlers.tool() !== "box") return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#draft = { from: at, to: at, screen: [event.clientX, event.clientY], off: event.button === 2 };
  }

  #move(event) {
    if (!this.#draft || !event.isPrimary) return;
    this.#draft.to = this.#toPhoto(event);
    this.draw();
  }

  #up(event) {
    const draft = this.#draft;
    if (!draft || !event.isPrimary) return;
    this.#drop();
    const moved = Math.hypot(event.clientX - draft.screen[0], event.clientY - draft.screen[1]);
    if (this.handlers.tool() === "box") {
      if (moved >= DRAG_PX) this.handlers.onBox(this.#corners(draft));
    } else if (draft.from.inside) {
      this.handlers.onPoint(draft.from.x, draft.from.y, draft.off);
    }
  }

  #drop() {
    this.#draft = null;
    this.draw();
  }

  #corners({ from, to }) {
    const clamp = (value, limit) => Math.min(limit, Math.max(0, value));
    const xs = [from.x, to.x].map((x) => clamp(x, this.photo.width)).sort((a, b) => a - b);
    const ys = [from.y, to.y].map((y) => clamp(y, this.photo.height)).sort((a, b) => a - b);
    return [xs[0], ys[0], xs[1], ys[1]];
  }

  #paint() {
    const { canvas } = this;
    const density = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * density);
    canvas.height = Math.round(canvas.clientHeight * density);
    if (!this.photo || !canvas.width) return;
    const context = canvas.getContext("2d");
    const { scale, left, top } = this.layout();
    context.setTransform(density * scale, 0, 0, density * scale, density * left, density * top);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.photo, 0, 0);
    if (this.overlay) context.drawImage(this.overlay, 0, 0, this.photo.width, this.photo.height);
    const drafting = this.#draft && this.handlers.tool() === "box";
    const box = drafting ? this.#corners(this.#draft) : this.box;
    if (box) this.#paintBox(context, box, 1 / scale);
    for (const [x, y, label] of this.points) this.#paintPoint(context, x, y, label, 1 / scale);
  }

  #paintBox(context, [x0, y0, x1, y1], pixel) {
    context.lineWidth = 2.5 * pixel;
    context.strokeStyle = "#ffd166";
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }

  #paintPoint(context, x, y, label, pixel) {
    context.beginPath();
    context.arc(x, y, 7 * pixel, 0, 2 * Math.PI);
    context.fillStyle = label ? "#4bd28f" : "#ff5f7a";
    context.fill();
    context.lineWidth = 2.5 * pixel;
    context.strokeStyle = "#fff";
    context.stroke();
  }
}
