// The page's side of the worker: one promise for each command.

/** Data that build.mjs put into a self-contained page; null on a served page. */
async function inlineFiles() {
  const elements = document.querySelectorAll("script[data-asset]");
  if (!elements.length) return null;
  const files = {};
  for (const element of elements) {
    const packed = Uint8Array.from(atob(element.textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    files[element.dataset.asset] = await new Response(stream).arrayBuffer();
    element.remove();
  }
  return files;
}

/** Talks to the worker. `onProgress` hears of long commands, 0 to 1. */
export class Client {
  onProgress = () => {};
  #waiting = new Map();
  #number = 0;

  static async start() {
    const client = new Client();
    const files = await inlineFiles();
    const script = files?.["worker.js"];
    const url = script ? URL.createObjectURL(new Blob([script], { type: "text/javascript" })) : "worker.js";
    client.worker = new Worker(url);
    client.worker.onmessage = ({ data }) => client.#receive(data);
    client.worker.onerror = (event) => client.#fail(event.message || "The worker could not start.");
    client.files = files;
    return client;
  }

  /** Whether no command waits for its answer. */
  get idle() {
    return this.#waiting.size === 0;
  }

  /** Runs a command in the worker; rejects with a message for people. */
  call(command, options = {}) {
    const id = ++this.#number;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, command, ...options });
    });
  }

  load(wanted) {
    const files = this.files;
    this.files = null;
    return this.call("load", { source: document.baseURI, files, wanted });
  }

  #receive({ id, result, error, progress }) {
    if (progress !== undefined) return this.onProgress(progress);
    const { resolve, reject } = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) reject(new Error(error));
    else resolve(result);
  }

  #fail(message) {
    for (const { reject } of this.#waiting.values()) reject(new Error(message));
    this.#waiting.clear();
  }
}
