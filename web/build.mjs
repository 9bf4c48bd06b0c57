// Builds the page around a model:
//   node build.mjs --artifacts=../artifacts/nano-448 --out=dist [--precisions=int8,fp32] [--single]
// Writes a static site, or with --single one HTML file that holds everything and works from a disk without a network.

import { createHash } from "node:crypto";
import { chmod, cp, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const ENGINE = path.join(HERE, "node_modules/@litertjs/core");
const SERVED = ["litert_wasm_internal", "litert_wasm_compat_internal", "litert_wasm_threaded_internal"];
/** A page from a disk never has threads. The compatible build is for browsers without relaxed SIMD. */
/** Stands for the manifest's hash of itself while that is computed. */
const NO_HASH = "0".repeat(64);
const INLINED = ["litert_wasm_internal", "litert_wasm_compat_internal"];

async function main() {
  const { values } = parseArgs({
    options: {
      artifacts: { type: "string" },
      out: { type: "string" },
      precisions: { type: "string", default: "int8" },
      single: { type: "boolean", default: false },
    },
  });
  if (!values.artifacts || !values.out) throw new Error("give --artifacts=DIR and --out=DIR");
  const model = await readModel(values.artifacts, values.precisions.split(","));
  const [page, worker] = await Promise.all([bundle("app.js", "esm"), bundle("worker.js", "iife")]);
  const out = path.resolve(values.out);
  await mkdir(path.dirname(out), { recursive: true });
  const work = await mkdtemp(`${out}.partial-`);
  await chmod(work, 0o755);
  try {
    if (values.single) await writeSingle(work, page, worker, model);
    else await writeSite(work, page, worker, model);
    await rm(out, { recursive: true, force: true });
    await rename(work, out);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  console.log(values.single ? path.join(out, "tinysam.html") : out);
}

/** The model's TFLite files of these precisions, checked, and a manifest that lists only them. */
async function readModel(folder, precisions) {
  const text = await readFile(path.join(folder, "manifest.json"), "utf8").catch(() => {
    throw new Error(`no model at ${folder}: make one with \`make export-int8\``);
  });
  const manifest = JSON.parse(text);
  const { content_sha256: stated } = manifest;
  if (manifest.schema !== 2) throw new Error(`${folder}: manifest schema ${manifest.schema}, this page reads 2`);
  if (sha256(text.replace(stated, NO_HASH)) !== stated) throw new Error(`${folder}: manifest.json was changed after it was written`);
  manifest.files = manifest.files.filter((f) => f.engine === "tflite" && precisions.includes(f.precision));
  manifest.files.sort((a, b) => precisions.indexOf(a.precision) - precisions.indexOf(b.precision));
  if (manifest.files.length !== 2 * precisions.length) throw new Error(`${folder}: no TFLite files of ${precisions}`);
  const files = {};
  for (const file of manifest.files) {
    const bytes = await readFile(path.join(folder, file.path));
    if (sha256(bytes) !== file.sha256) throw new Error(`${file.path} is damaged`);
    files[file.path] = bytes;
  }
  const listed = JSON.stringify({ ...manifest, content_sha256: NO_HASH });
  return { "manifest.json": Buffer.from(listed.replace(NO_HASH, sha256(listed))), ...files };
}

const sha256 = (data) => createHash("sha256").update(data).digest("hex");

async function bundle(name, format) {
  const { outputFiles, metafile } = await build({
    entryPoints: [path.join(HERE, "src", name)],
    bundle: true,
    minify: true,
    write: false,
    format,
    target: "es2022",
    legalComments: "none",
    metafile: true,
  });
  return `${await licences(metafile)}${outputFiles[0].text}`;
}

/** The licences of the packages whose code is in a bundle, as a comment: they ask to be in every copy. */
async function licences({ inputs }) {
  const packages = new Set(Object.keys(inputs).flatMap((file) => file.match(/.*node_modules\/(@[^/]+\/)?[^/]+/)?.[0] ?? []));
  if (!packages.size) return "";
  const texts = [...packages].map(async (folder) => {
    const text = await readFile(path.join(folder, "LICENSE"), "utf8").catch(() => null);
    const { license } = JSON.parse(await readFile(path.join(folder, "package.json"), "utf8"));
    return `${folder.split("node_modules/")[1]}: ${text ?? license}`;
  });
  return `/*!\n${(await Promise.all(texts)).join("\n\n").replaceAll("*/", "* /")}\n*/\n`;
}

async function html(script, assets = "") {
  const [page, style] = await Promise.all(["index.html", "style.css"].map((f) => readFile(path.join(HERE, "src", f), "utf8")));
  return page
    .replace("<!--style-->", () => `<style>\n${style}</style>`)
    .replace("<!--assets-->", () => assets)
    .replace("<!--script-->", () => `<script type="module">${script.replaceAll("</script", "<\\/script")}</script>`);
}

async function writeSite(folder, page, worker, model) {
  await mkdir(path.join(folder, "litert"));
  await mkdir(path.join(folder, "model"));
  for (const name of SERVED) {
    for (const kind of ["js", "wasm"]) {
      await cp(path.join(ENGINE, "wasm", `${name}.${kind}`), path.join(folder, "litert", `${name}.${kind}`));
    }
  }
  for (const [name, bytes] of Object.entries(model)) await writeFile(path.join(folder, "model", name), bytes);
  await writeFile(path.join(folder, "worker.js"), worker);
  await writeFile(path.join(folder, "index.html"), await html(page));
}

async function writeSingle(folder, page, worker, model) {
  const files = { ...model, "worker.js": Buffer.from(worker) };
  for (const name of INLINED) {
    for (const kind of ["js", "wasm"]) files[`${name}.${kind}`] = await readFile(path.join(ENGINE, "wasm", `${name}.${kind}`));
  }
  const inline = ([name, bytes]) =>
    `<script type="application/gzip" data-asset="${name}">${gzipSync(bytes, { level: 9 }).toString("base64")}</script>`;
  await writeFile(path.join(folder, "tinysam.html"), await html(page, Object.entries(files).map(inline).join("\n")));
}

main().catch((error) => {
  console.error(`web: ${error.message}`);
  process.exit(1);
});
