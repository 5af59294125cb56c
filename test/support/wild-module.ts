/** A module that does what the page's body says; of all other pages it gives an item. */
export const WILD_MODULE = `
import { spawn } from "node:child_process";
import { closeSync, writeSync } from "node:fs";
const kept = [];
const turn = (ms = 0) => new Promise((go) => setTimeout(go, ms));
const does = {
  throw() { throw new Error("no such price"); },
  async "throw late"(page) { await page.crawl.state.get("x"); throw new TypeError("late"); },
  loop() { for (;;); },
  async "loop late"(page) { await page.crawl.state.get("x"); for (;;); },
  hang: () => new Promise(() => {}),
  exit: () => process.exit(0),
  "exit 3": () => process.exit(3),
  abort: () => process.abort(),
  kill: () => process.kill(process.pid, "SIGKILL"),
  stop: () => process.kill(process.pid, "SIGSTOP"),
  heap() { for (;;) kept.push(new Array(1000).fill(kept.length + 0.5)); },
  async buffers() { for (;;) { kept.push(Buffer.alloc(16_000_000, 1)); await turn(5); } },
  "buffers at once"() { for (;;) kept.push(Buffer.alloc(16_000_000, 1)); },
  "null error"() { throw null; },
  "odd error"() { throw { toString() { throw new Error("ha"); } }; },
  async uncaught() { setTimeout(() => { throw new Error("thrown later"); }); await turn(1e6); },
  async channel() { writeSync(3, "x".repeat(50)); await turn(1e6); },
  async "huge frame"() { writeSync(3, Buffer.alloc(8, 127)); await turn(1e6); },
  async "close channel"() { closeSync(3); closeSync(4); await turn(1e6); },
  async questions(page) {
    for (let i = 0; i < 5000; i += 1) page.crawl.state.get("x").catch(() => {});
    await page.crawl.state.get("x");
  },
  "leave a child"() { spawn("sleep", ["600"], { stdio: "inherit" }); process.exit(4); },
};
export default {
  name: "wild",
  async *parse(page) {
    const what = page.text();
    await does[what]?.(page);
    if (what === "outputs") for (;;) yield { item: { a: 1 } };
    if (what === "outputs at once") yield* (function* () { for (;;) yield { item: { a: 1 } }; })();
    if (what === "large outputs") for (let i = 0; i < 3; i += 1) yield { item: { text: "x".repeat(30_000_000) } };
    if (what === "no item") yield 5;
    if (what === "function") yield { item: { f() {} } };
    if (what.startsWith("log ")) for (let i = 0; i < Number(what.slice(4)); i += 1) page.log.info({ i }, "line");
    if (what.startsWith("print ")) for (let i = 0; i < Number(what.slice(6)); i += 1) console.log("line", i);
    if (what === "rejected") { Promise.reject(new Error("left alone")); await turn(20); }
    yield { item: { url: page.url, pid: process.pid } };
  },
  callbacks: { *at_once(page) { does[page.text()]?.(page); yield { item: { url: page.url } }; } },
};`;
