import { createHash } from "node:crypto";
import type { FastifyInstance } from "fastify";

/**
 * The first dashboard: one page that needs nothing from anywhere else. It is served to anyone, since it holds
 * no data; with tokens set it asks for one, keeps it for the tab, and sends it with each request. Text from
 * the API is only ever set as text, and the policy below lets no other script run.
 */
export function dashboardRoutes(server: FastifyInstance): void {
  server.get("/", { config: { open: true } }, (_request, reply) =>
    reply
      .type("text/html; charset=utf-8")
      .header("content-security-policy", POLICY)
      .header("cache-control", "no-cache")
      .send(PAGE),
  );
}

const STYLE = `
:root { color-scheme: light dark; --line: #c8ccd2; --soft: #5b6470; --bg: #fff; --fg: #16191d; --accent: #0b5cad; --bad: #a4262c; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a4048; --soft: #a3acb8; --bg: #14171a; --fg: #e8eaed; --accent: #7ab8f5; --bad: #ff9b9f; }
}
body { margin: 0 auto; padding: 1rem; max-width: 80rem; background: var(--bg); color: var(--fg); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
header { display: flex; gap: 1rem; align-items: baseline; flex-wrap: wrap; }
form { display: flex; gap: .75rem; flex-wrap: wrap; align-items: end; }
label { display: grid; gap: .2rem; font-size: .875rem; } .grow { flex: 1 1 20rem; }
input, select, button { font: inherit; color: inherit; background: transparent; border: 1px solid var(--line); border-radius: .3rem; padding: .3rem .6rem; }
select option { background: var(--bg); } button { cursor: pointer; } button:hover { border-color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.url { max-width: 22rem; overflow-wrap: anywhere; } td button { padding: 0 .5rem; margin-right: .3rem; }
.soft { color: var(--soft); } .bad { color: var(--bad); } ol { list-style: none; padding: 0; margin: 0; font-size: .875rem; }
li { border-bottom: 1px solid var(--line); padding: .15rem 0; overflow-wrap: anywhere; } [hidden] { display: none !important; }
`;

const SCRIPT = `
"use strict";
const byId = (id) => document.getElementById(id);
const storedToken = () => sessionStorage.getItem("warren-token");
const COUNTS = ["queued", "active", "done", "failed", "skipped", "items", "files"];
let asked = false;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (className) made.className = className;
  return made;
}

async function api(path, options = {}) {
  const headers = { accept: "application/json" };
  if (storedToken()) headers.authorization = "Bearer " + storedToken();
  if (options.body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch("/api/v1" + path, { ...options, headers });
  if (response.status === 401) askForToken();
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail || response.status + " " + response.statusText);
  }
  return response;
}

function askForToken() {
  byId("sign-in").hidden = false;
  if (!asked) byId("token").focus();
  asked = true;
}

function say(text, isBad) {
  byId("message").textContent = text;
  byId("message").className = isBad ? "bad" : "soft";
}

async function act(what, path, method) {
  try {
    await api(path, { method });
    say(what);
    await refresh();
  } catch (error) {
    say(error.message, true);
  }
}

function button(label, about, action) {
  const made = element("button", label);
  made.type = "button";
  made.setAttribute("aria-label", label + " " + about);
  made.addEventListener("click", action);
  return made;
}

function crawlRow(crawl) {
  const row = element("tr");
  const name = crawl.name || crawl.id;
  const title = element("td", name, "url");
  title.title = crawl.id;
  row.append(title, element("td", crawl.spider), element("td", crawl.status + (crawl.finishReason && crawl.finishReason !== "completed" ? " (" + crawl.finishReason + ")" : "")));
  for (const count of COUNTS) row.append(element("td", crawl.counts[count], "number"));
  const actions = element("td");
  const path = "/crawls/" + encodeURIComponent(crawl.id);
  if (crawl.status === "running") actions.append(button("Pause", name, () => act("Paused " + name, path + "/pause", "POST")));
  if (crawl.status === "paused" || crawl.status === "closed") actions.append(button("Resume", name, () => act("Resumed " + name, path + "/resume", "POST")));
  if (crawl.status === "running" || crawl.status === "paused") actions.append(button("Close", name, () => act("Closed " + name, path + "/close", "POST")));
  if (crawl.counts.items > 0) actions.append(button("Items", name, () => download(path + "/items?format=ndjson", name)));
  row.append(actions);
  return row;
}

async function download(path, name) {
  try {
    const response = await api(path);
    const link = element("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = name.replace(/[^A-Za-z0-9._-]+/g, "-") + ".ndjson";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  } catch (error) {
    say(error.message, true);
  }
}

function nodeRow(node) {
  const row = element("tr");
  row.append(element("td", node.id), element("td", node.status), element("td", node.host), element("td", node.active, "number"), element("td", node.concurrency, "number"), element("td", node.heartbeatAt));
  return row;
}

function fill(bodyId, rows, columns) {
  if (rows.length === 0) {
    const row = element("tr");
    const cell = element("td", "None yet.", "soft");
    cell.colSpan = columns;
    row.append(cell);
    rows = [row];
  }
  const body = byId(bodyId);
  const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  body.replaceChildren(...rows);
  if (focused) for (const candidate of body.querySelectorAll("button")) if (candidate.getAttribute("aria-label") === focused) candidate.focus();
}

let isRefreshing = false;
async function refresh() {
  if (isRefreshing) return;
  isRefreshing = true;
  try {
    const [crawls, nodes] = await Promise.all([api("/crawls?limit=50"), api("/nodes")]).then((both) => Promise.all(both.map((one) => one.json())));
    fill("crawls", crawls.items.map(crawlRow), COUNTS.length + 4);
    fill("nodes", nodes.items.map(nodeRow), 6);
    byId("state").textContent = "live";
    byId("sign-in").hidden = true;
  } catch (error) {
    byId("state").textContent = error.message;
  } finally {
    isRefreshing = false;
  }
}

async function follow() {
  for (;;) {
    try {
      const response = await api("/events?type=crawl.*,node.*,notification.*");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const parts = (rest + value).split("\\n\\n");
        rest = parts.pop();
        for (const part of parts) {
          const data = part.split("\\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\\n");
          if (data) show(JSON.parse(data));
        }
      }
    } catch {}
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

function show(event) {
  const line = element("li", event.at + "  " + event.type + "  " + [event.crawl, event.node].filter(Boolean).join(" "));
  byId("events").prepend(line);
  while (byId("events").children.length > 30) byId("events").lastChild.remove();
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("warren-token", byId("token").value.trim());
  refresh();
});

byId("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = { spider: byId("spider").value, seeds: byId("seeds").value.split(/\\s+/).filter(Boolean) };
  if (byId("depth").value !== "") body.limits = { maxDepth: Number(byId("depth").value) };
  try {
    const crawl = await (await api("/crawls", { method: "POST", body: JSON.stringify(body) })).json();
    say("Started " + crawl.id);
    byId("seeds").value = "";
    await refresh();
  } catch (error) {
    say(error.message, true);
  }
});

async function listSpiders() {
  try {
    const { items } = await (await api("/spiders")).json();
    byId("spider").replaceChildren(...items.map((spider) => element("option", spider.name)));
    byId("spider").value = "links";
  } catch {}
}

listSpiders();
refresh();
setInterval(() => { if (!document.hidden) refresh(); }, 1000);
follow();
`;

const BODY = `
<header><h1>Warren</h1><span id="state" class="soft" role="status">connecting</span></header>
<form id="sign-in" hidden><label>Token<input id="token" type="password" autocomplete="off" required></label><button>Sign in</button></form>
<main>
<h2 id="start-title">Start a crawl</h2>
<form id="start" aria-labelledby="start-title">
<label class="grow">Seeds, separated by spaces<input id="seeds" required placeholder="https://example.org/" inputmode="url" autocomplete="off"></label>
<label>Spider<select id="spider"><option>links</option><option>pdf</option></select></label>
<label>Depth at most<input id="depth" type="number" min="0" step="1" placeholder="no limit"></label>
<button>Start</button>
</form>
<p id="message" class="soft" role="status"></p>
<h2 id="crawls-title">Crawls</h2>
<div class="table" tabindex="0" role="region" aria-labelledby="crawls-title"><table>
<thead><tr><th scope="col">Crawl</th><th scope="col">Spider</th><th scope="col">Status</th><th scope="col" class="number">Queued</th><th scope="col" class="number">Active</th><th scope="col" class="number">Done</th><th scope="col" class="number">Failed</th><th scope="col" class="number">Skipped</th><th scope="col" class="number">Items</th><th scope="col" class="number">Files</th><th scope="col">Actions</th></tr></thead>
<tbody id="crawls"></tbody></table></div>
<h2 id="nodes-title">Nodes</h2>
<div class="table" tabindex="0" role="region" aria-labelledby="nodes-title"><table>
<thead><tr><th scope="col">Node</th><th scope="col">Status</th><th scope="col">Host</th><th scope="col" class="number">Active</th><th scope="col" class="number">Concurrency</th><th scope="col">Last heartbeat</th></tr></thead>
<tbody id="nodes"></tbody></table></div>
<h2>Latest events</h2>
<ol id="events"></ol>
</main>
`;

const PAGE = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Warren</title><link rel="icon" href="data:,"><style>${STYLE}</style></head>
<body>${BODY}<script>${SCRIPT}</script></body></html>
`;

const POLICY = [
  "default-src 'none'",
  `script-src '${hashOf(SCRIPT)}'`,
  `style-src '${hashOf(STYLE)}'`,
  "connect-src 'self'",
  "img-src data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** A source that the policy allows, by its bytes. */
function hashOf(source: string): string {
  return `sha256-${createHash("sha256").update(source).digest("base64")}`;
}
