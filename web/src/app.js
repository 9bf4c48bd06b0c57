// The page: tools, keys and what is shown. The model lives in the worker.

import { takePhotograph } from "./camera.js";
import { Client } from "./client.js";
import { View } from "./view.js";

const $ = (selector) => document.querySelector(selector);
const state = { tool: "add", history: [], name: "photograph", facts: {}, ready: false, asked: 0, looking: 0 };
/** After a click, before a closer look at its object: the next click of a series is not kept waiting by the encoder. */
const PAUSE_MS = 250;
const view = new View($("#view"), { tool: () => state.tool, onPoint, onBox });
let client;

async function start() {
  try {
    client = await Client.start();
    client.onProgress = (share) => {
      $("#progress").hidden = false;
      $("#progress").value = share;
    };
    await load();
  } catch (error) {
    $("#status").textContent = "The model could not be loaded.";
    complain(error);
    return;
  }
  state.ready = true;
  refresh();
}

async function load(wanted) {
  const facts = await busy("Loading the model …", () => client.load(wanted));
  state.facts = facts;
  const select = $("#precision");
  select.replaceChildren(...facts.precisions.map((name) => new Option(name.toUpperCase(), name, false, name === facts.precision)));
  $("#precision-label").hidden = facts.precisions.length < 2;
  showStatus();
}

async function openPhoto(blob, name = "photograph") {
  if (!blob || !state.ready) return;
  try {
    const opened = await busy("Looking at the photograph …", () => client.call("open", { blob }));
    view.photo?.close();
    view.photo = await createImageBitmap(blob, { colorSpaceConversion: "none" });
    Object.assign(state, { name: name.replace(/\.[^.]*$/, ""), history: [] });
    Object.assign(state.facts, { encodeMs: opened.encodeMs, decodeMs: null, everythingMs: null });
    $("#welcome").hidden = true;
    state.asked++; // whatever was asked of the photograph before is not shown
    show(null);
  } catch (error) {
    complain(error);
  }
}

function onPoint(x, y, off) {
  const label = off || state.tool === "remove" ? 0 : 1;
  state.history.push({ point: [x, y, label] });
  segment();
}

function onBox(box) {
  state.history.push({ box });
  segment();
}

/** The points and the last box of the history, now on the view too. */
function drawPrompt() {
  const points = state.history.filter((entry) => entry.point).map((entry) => entry.point);
  const box = state.history.findLast((entry) => entry.box)?.box ?? null;
  Object.assign(view, { points, box });
  view.draw();
  return { points, box };
}

/** Asks for the mask of the prompt; an answer that a newer question has overtaken is not shown. */
async function segment(choice) {
  const { points, box } = drawPrompt();
  const question = ++state.asked;
  if (!points.length && !box) return client.call("clear").then(() => show(null));
  try {
    const answer = await client.call("predict", { points, box, choice });
    if (question !== state.asked) return answer.overlay.close();
    Object.assign(state.facts, { decodeMs: answer.decodeMs, everythingMs: null });
    const chosen = choice ?? answer.best;
    show(answer.overlay, answer.iou, chosen);
    // Another mask that was chosen by hand for a box stays: a closer look answers with the mask that the box gets.
    if (!box || chosen === answer.best) await lookCloser(question, { points, box }, answer.iou, chosen);
  } catch (error) {
    state.history.pop();
    drawPrompt();
    complain(error);
  }
}

/** Shows the mask from a closer look at a small object, unless something else is asked meanwhile. */
async function lookCloser(question, prompt, iou, chosen) {
  state.looking++;
  try {
    await new Promise((done) => setTimeout(done, PAUSE_MS));
    if (question !== state.asked) return;
    const answer = await client.call("closer", prompt);
    if (!answer.overlay) return;
    if (question !== state.asked) return answer.overlay.close();
    show(answer.overlay, iou.map((value, place) => (place === chosen ? answer.iou : value)), chosen);
  } catch (error) {
    if (question === state.asked) complain(error); // the mask of the first look stays
  } finally {
    state.looking--;
  }
}

async function everything() {
  state.history = [];
  const question = ++state.asked;
  try {
    const answer = await busy("Segmenting everything …", () => client.call("everything"));
    if (question !== state.asked) return;
    Object.assign(state.facts, { everythingMs: answer.everythingMs, count: answer.count });
    show(answer.overlay);
    if (answer.flat) complain(new Error("The picture is flat: it shows no objects."));
    else if (!answer.count) complain(new Error("Nothing was found: click on an object instead."));
  } catch (error) {
    complain(error);
  }
}

/** Shows a mask picture (or none) and, for a prompt, the choice between its masks. */
function show(overlay, iou, chosen) {
  view.overlay?.close();
  view.overlay = overlay;
  const { points, box } = drawPrompt();
  const row = $("#candidates");
  row.hidden = !iou;
  // In the half of the picture where the prompt is not, so that it does not cover what was asked for.
  const heights = [...points.map(([, y]) => y), ...(box ? [box[1], box[3]] : [])];
  if (iou) row.classList.toggle("low", Math.min(...heights) + Math.max(...heights) < view.photo.height);
  row.replaceChildren(
    ...(iou ?? []).map((value, index) => {
      const button = Object.assign(document.createElement("button"), { textContent: `${index + 1} · ${Math.round(100 * value)} %` });
      button.setAttribute("role", "radio");
      button.setAttribute("aria-checked", index === chosen);
      button.title = "Predicted quality of this mask";
      button.onclick = () => segment(index);
      return button;
    }),
  );
  state.hasMask = Boolean(iou);
  showStatus();
  refresh();
}

async function download() {
  try {
    const { png } = await busy("Saving …", () => client.call("png"));
    const url = URL.createObjectURL(new Blob([png], { type: "image/png" }));
    Object.assign(document.createElement("a"), { href: url, download: `${state.name}.mask.png` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    complain(error);
  }
}

async function busy(text, work) {
  $("#message").hidden = true;
  $("#busy-text").textContent = text;
  $("#busy").hidden = false;
  document.body.ariaBusy = "true";
  try {
    return await work();
  } finally {
    $("#busy").hidden = true;
    $("#progress").hidden = true;
    document.body.ariaBusy = "false";
  }
}

let messageTimer;
function complain(error) {
  $("#message").textContent = error.message;
  $("#message").hidden = false;
  clearTimeout(messageTimer);
  if (state.ready) messageTimer = setTimeout(() => ($("#message").hidden = true), 8000);
}

function showStatus() {
  const { variant, size, precision, threads, encodeMs, decodeMs, everythingMs, count } = state.facts;
  const parts = [`${variant}-${size} · <b>${precision.toUpperCase()}</b> · LiteRT.js, wasm, ${threads === 1 ? "1 thread" : `${threads} threads`}`];
  if (encodeMs) parts.push(`photograph <b>${Math.round(encodeMs)} ms</b>`);
  if (decodeMs) parts.push(`click <b>${Math.round(decodeMs)} ms</b>`);
  if (everythingMs) parts.push(`${count} ${count === 1 ? "mask" : "masks"} in <b>${(everythingMs / 1000).toFixed(1)} s</b>`);
  $("#status").innerHTML = parts.join(" · ");
}

function refresh() {
  const can = { open: state.ready, camera: state.ready, everything: view.photo, undo: state.history.length, clear: view.overlay || state.history.length, download: state.hasMask };
  for (const button of document.querySelectorAll("[data-do]")) button.disabled = !can[button.dataset.do];
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === state.tool);
}

const actions = {
  open: () => $("#file").click(),
  camera: () => takePhotograph($("#camera")).then((blob) => openPhoto(blob, "camera")).catch(complain),
  everything,
  download,
  undo() {
    state.history.pop();
    segment();
    refresh();
  },
  clear() {
    state.history = [];
    segment();
  },
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.do) actions[button.dataset.do]();
  if (button?.dataset.tool) {
    state.tool = button.dataset.tool;
    refresh();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("select, input") || $("#camera").open) return;
  const tools = { 1: "add", 2: "remove", 3: "box" };
  const keys = { o: "open", e: "everything", s: "download", Escape: "clear" };
  const withControl = event.ctrlKey || event.metaKey;
  const action = (withControl ? { z: "undo" } : keys)[event.key];
  if (tools[event.key] && !withControl) state.tool = tools[event.key];
  if (action && !document.querySelector(`[data-do="${action}"]`).disabled) actions[action]();
  refresh();
});
$("#file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) openPhoto(file, file.name);
  event.target.value = "";
});
$("#precision").addEventListener("change", async (event) => {
  try {
    await load(event.target.value);
    if (state.history.length) await segment();
  } catch (error) {
    event.target.value = state.facts.precision;
    complain(error);
  }
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("#stage").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget ?? $("#stage").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("#stage").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) openPhoto(file, file.name);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) openPhoto(file, file.name);
});

/** For scripts and tests: the same commands that the page gives its worker. */
window.tinysam = {
  get ready() {
    return state.ready;
  },
  /** Whether every command so far has been answered. */
  idle: () => state.ready && client.idle && !state.looking && document.body.ariaBusy !== "true",
  /** Pixels of the photograph that is shown. */
  size: () => ({ width: view.photo.width, height: view.photo.height }),
  open: (blob) => openPhoto(blob),
  call: (command, options) => client.call(command, options),
};

start();
