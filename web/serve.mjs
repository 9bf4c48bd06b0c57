// Serves a built page on this machine, with the headers that give a page threads:
//   node serve.mjs [folder] [port]

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";

const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };
const root = path.resolve(process.argv[2] ?? "dist");
const port = Number(process.argv[3] ?? 8000);

const server = createServer(async (request, response) => {
  const name = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
  const file = path.join(root, name.endsWith("/") ? `${name}index.html` : name);
  const found = file.startsWith(root + path.sep) && (await stat(file).catch(() => null));
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
