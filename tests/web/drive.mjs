// Drives the page in headless Chromium, as a person would where that is what is tested.
//   node drive.mjs < job.json > results.json
// A job: {"url": ..., "browser": path, "steps": [[name, arguments], ...], "viewport": {...}, "touch": bool,
//   "replace": {address pattern: text to answer with}, "flags": [of Chromium]}

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(new URL("../../web/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const job = JSON.parse(readFileSync(0, "utf8"));

const browser = await chromium.launch({
  executablePath: job.browser,
  args: ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", ...(job.flags ?? [])],
});
const context = await browser.newContext({ viewport: job.viewport ?? { width: 1280, height: 800 }, hasTouch: job.touch ?? false });
const page = await context.newPage();
const errors = [];
page.on("pageerror", (error) => errors.push(String(error)));
const requests = [];
page.on("request", (request) => requests.push(request.url()));
for (const [pattern, body] of Object.entries(job.replace ?? {})) await context.route(pattern, (route) => route.fulfill({ body }));

/** Page coordinates of a pixel of the photograph. */
async function screen(x, y) {
  const box = await page.locator("#view").boundingBox();
  const { width, height } = await page.evaluate(() => window.tinysam.size());
  const scale = Math.min(box.width / width, box.height / height);
  return [box.x + (box.width - width * scale) / 2 + x * scale, box.y + (box.height - height * scale) / 2 + y * scale];
}
const idle = () => page.waitForFunction(() => window.tinysam?.idle(), null, { timeout: 120_000 });

const steps = {
  ready: () => page.waitForFunction(() => window.tinysam?.ready, null, { timeout: 60_000 }),
  async open(path) {
    await page.setInputFiles("#file", path);
    await page.waitForTimeout(50);
    await idle();
  },
  async click(x, y) {
    const at = await screen(x, y);
    if (job.touch) await page.touchscreen.tap(...at);
    else await page.mouse.click(...at);
    await page.waitForTimeout(20);
    await idle();
  },
  async drag(x0, y0, x1, y1) {
    await page.mouse.move(...(await screen(x0, y0)));
    await page.mouse.down();
    await page.mouse.move(...(await screen((x0 + x1) / 2, (y0 + y1) / 2)));
    await page.mouse.move(...(await screen(x1, y1)));
    await page.mouse.up();
    await page.waitForTimeout(20);
    await idle();
  },
  async press(selector) {
    await page.click(selector);
    await page.waitForTimeout(20);
    await idle();
  },
  key: (key) => page.keyboard.press(key),
  text: (selector) => page.textContent(selector),
  visible: (selector) => page.isVisible(selector),
  enabled: (selector) => page.isEnabled(selector),
  waitVisible: (selector) => page.waitForSelector(selector, { state: "visible", timeout: 60_000 }).then(() => true),
  evaluate: (code) => page.evaluate(code),
  async mask() {
    return page.evaluate(async () => {
      const { width, height, mask } = await window.tinysam.call("mask");
      const bits = new Uint8Array(Math.ceil(mask.length / 8));
      for (let i = 0; i < mask.length; i++) if (mask[i]) bits[i >> 3] |= 128 >> (i & 7);
      let text = "";
      for (let i = 0; i < bits.length; i += 8192) text += String.fromCharCode(...bits.subarray(i, i + 8192));
      return { width, height, bits: btoa(text) };
    });
  },
  async download(path) {
    const [file] = await Promise.all([page.waitForEvent("download"), page.click('[data-do="download"]')]);
    await file.saveAs(path);
    return file.suggestedFilename();
  },
  screenshot: (path) => page.screenshot({ path, timeout: 60_000 }).then(() => true),
};

const results = [];
try {
  await page.goto(job.url);
  for (const [name, ...values] of job.steps) results.push((await steps[name](...values)) ?? null);
  console.log(JSON.stringify({ results, errors, requests }));
} finally {
  await browser.close();
}
