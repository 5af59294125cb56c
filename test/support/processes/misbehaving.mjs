// A process spider that does with each page what the page's text says: well-behaved, or one of many other ways.
import { spawn } from "node:child_process";
import { closeSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";

const say = (message) =>
  process.stdout.write(`${typeof message === "string" ? message : JSON.stringify(message)}\n`);
const forEver = () => new Promise((resolve) => setTimeout(resolve, 2 ** 30));
let calls = 0;
const answers = new Map();
const ask = (message) =>
  new Promise((resolve) => {
    calls += 1;
    answers.set(calls, resolve);
    say({ ...message, id: calls });
  });

const behaviours = {
  well: (page) => say({ type: "item", page: page.id, data: { url: page.url, pid: process.pid } }),
  unnumbered: (page) => say({ type: "item", data: { url: page.url } }),
  echo: (page) => say({ type: "item", page: page.id, data: page }),
  opened: () => say({ type: "item", data: opened }),
  environment: () => say({ type: "item", data: process.env }),
  slow: async (page, ms) => {
    await new Promise((resolve) => setTimeout(resolve, Number(ms)));
    say({ type: "item", page: page.id, data: { url: page.url } });
  },
  outputs: (page) => {
    say({ type: "request", page: page.id, url: "/next", meta: { a: 1 }, priority: 9, callback: "book" });
    say({ type: "store", page: page.id, url: "/a.pdf" });
    say({ type: "item", page: page.id, data: { a: 1 }, further: "members" });
  },
  fails: (page) => say({ type: "error", page: page.id, message: "no price" }),
  exits: (_, code) => process.exit(Number(code)),
  "exits-loudly": () => {
    console.error("Traceback: line 1\nValueError: no price");
    process.exit(1);
  },
  segv: () => process.kill(process.pid, "SIGSEGV"),
  hangs: forEver,
  "ignores-term": () => {
    process.on("SIGTERM", () => {});
    return forEver();
  },
  grandchild: () => {
    const child = spawn("sh", ["-c", "trap '' TERM HUP; while :; do sleep 1000; done"], { detached: true });
    say({ type: "log", message: `grandchild ${child.pid}` });
    return forEver();
  },
  endless: () => {
    const piece = "x".repeat(65_536);
    for (;;) writeSync(1, piece);
  },
  "long-line": () => say("y".repeat(6_000_000)),
  "long-message": () => say({ type: "item", data: { text: "y".repeat(6_000_000) } }),
  garbage: () => ["}{", "[1,2]", "null", '"text"', "{", "{}", '{"a":1}', "\u0000\u0007"].forEach(say),
  "half-a-message": () => say('{"type":"item","data":{"a":'),
  binary: () => process.stdout.write(Buffer.from([...Array(256).keys(), 10])),
  flood: async (_, lines) => {
    for (let line = 0; line < Number(lines); line += 1)
      if (!say(`line ${line}`)) await new Promise((resolve) => process.stdout.once("drain", resolve));
  },
  "item-flood": async () => {
    for (;;)
      if (!say({ type: "item", data: { a: 1 } }))
        await new Promise((resolve) => process.stdout.once("drain", resolve));
  },
  "unknown-flood": () => {
    for (let line = 0; line < 10_000; line += 1) say({ type: `unheard-of-${line}` });
  },
  "closes-stdout": () => {
    closeSync(1);
    return forEver();
  },
  "closes-stdin": () => {
    process.stdin.destroy();
    return forEver();
  },
  hog: () => {
    const kept = [];
    setInterval(() => kept.push(Buffer.alloc(20_000_000, 1)), 5);
    return forEver();
  },
  late: (page) => {
    say({ type: "done", page: page.id });
    say({ type: "item", page: page.id, data: { too: "late" } });
    say({ type: "done", page: page.id });
    return "done";
  },
  "unknown-page": (page) => {
    say({ type: "item", page: 999_999, data: { a: 1 } });
    say({ type: "done", page: 999_999 });
    say({ type: "item", page: page.id, data: { b: 1 } });
  },
  "wrong-item": () => say({ type: "item", data: "text" }),
  "wrong-request": () => say({ type: "request", url: 5 }),
  "wrong-page": () => say({ type: "item", page: "one", data: {} }),
  "wrong-method": () => say({ type: "request", url: "/", method: "DELETE" }),
  unheard: () => {
    say({ type: "news", page: 1 });
    say({ type: "news", page: 2 });
  },
  logs: () => {
    say({ type: "log", level: "WARNING", message: "careful", price: 3 });
    say({ type: "log", level: "loud", message: { not: "text" } });
    say("a plain line");
    console.error("a line on standard error");
  },
  stats: () => {
    say({ type: "stats", name: "books" });
    say({ type: "stats", name: "books", by: 2.5 });
  },
  state: async (page) => {
    const before = await ask({ type: "state.get", name: "seen" });
    await ask({ type: "state.set", name: "seen", value: { urls: [page.url] } });
    const after = await ask({ type: "state.get", name: "seen" });
    const sums = [
      await ask({ type: "state.add", name: "n" }),
      await ask({ type: "state.add", name: "n", by: 4 }),
    ];
    await ask({ type: "state.delete", name: "seen" });
    const deleted = await ask({ type: "state.get", name: "seen" });
    const wrong = await ask({ type: "state.set", name: "", value: 1 });
    say({ type: "item", page: page.id, data: { before, after, sums, deleted, wrong } });
  },
};

let opened;
const reading = createInterface({ input: process.stdin });
let working = Promise.resolve();
reading.on("line", (line) => {
  const message = JSON.parse(line);
  if (message.type === "open") opened = message;
  if (message.type === "state") answers.get(message.id)?.(message);
  if (message.type !== "page" && message.type !== "file") return;
  working = working.then(async () => {
    const [name, ...args] = (message.text ?? "echo").split(" ");
    if ((await behaviours[name](message, ...args)) !== "done") say({ type: "done", page: message.id });
  });
});
if (process.argv.includes("--stays")) {
  process.on("SIGTERM", () => {});
  setInterval(() => {}, 1_000);
}
