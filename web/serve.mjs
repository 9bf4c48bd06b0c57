// Serves a built page on this machine, with the headers that give a page threads:
//   node serve.mjs [folder] [port]

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";

const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };
const root = path.resolve(process.argv[2] ?? "dist");
const port = Number(process.argv[3] ?? 8000);
if (!(Number.isInteger(port) && port >= 0 && port < 65536)) {
  console.error(`web: port ${process.argv[3]}: expected a number from 0 to 65535`);
  process.exit(1);
}

/** Path on the disk; empty for an address that cannot be decoded. */
function requestedFile(url) {
  try {
    const name = decodeURIComponent(new URL(url, "http://localhost").pathname);
    return path.join(root, name.endsWith("/") ? `${name}index.html` : name);
  } catch {
    return "";
  }
}

const server = createServer(async (request, response) => {
  const file = requestedFile(request.url);
  const found = file.startsWith(root + path.sep) ? await stat(file).catch(() => null) : null;
  const headers = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cache-Control": "no-cache",
    "Content-Type": TYPES[path.extname(file)] ?? "application/octet-stream",
  };
  if (!found?.isFile()) return response.writeHead(404, headers).end("not found");
  response.writeHead(200, { ...headers, "Content-Length": found.size });
  createReadStream(file).pipe(response);
});
server.on("error", (error) => {
  console.error(`web: port ${port}: ${error.code === "EADDRINUSE" ? "already in use, choose another" : error.message}`);
  process.exit(1);
});
server.listen(port, "127.0.0.1", () => console.log(`http://localhost:${server.address().port}`));
