import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import type { LookupFunction } from "node:net";
import { tmpdir } from "node:os";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { RenderError } from "../../src/crawl/errors.js";
import { Fetcher } from "../../src/crawl/fetch/fetcher.js";
import { Browser } from "../../src/crawl/render/browser.js";
import { DEFAULT_RENDER_OPTIONS, type Rendering } from "../../src/crawl/render/render-options.js";
import { type RenderedPage, Renderer } from "../../src/crawl/render/renderer.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger as logger } from "../../src/lib/logger.js";
import { PageServer } from "../support/page-server.js";

const USER_AGENT = "WarrenTest/1.0";
const MiB = 2 ** 20;
const PATH = process.env.WARREN_BROWSER_PATH;
const PROGRAM = PATH === undefined ? {} : { path: PATH };

let browser: Browser;
let site: PageServer;
/** Not allowed to be fetched: on another loopback address than the site's. */
let inside: PageServer;
let fetcher: Fetcher;

beforeAll(() => {
  browser = new Browser({ ...PROGRAM, maxPageMemoryBytes: 300 * MiB }, { clock: systemClock, logger });
});

afterAll(async () => {
  await browser.stop();
});

beforeEach(async () => {
  site = await new PageServer().start();
  inside = await new PageServer().start();
  // No name is remembered, so that each connection asks anew.
  const options = {
    userAgent: USER_AGENT,
    timeoutMs: 5_000,
    allowedNetworks: ["127.0.0.1/32"],
    dnsCacheMs: 0,
  };
  fetcher = new Fetcher(options, { resolve: turncoat() });
  return async () => {
    await fetcher.close();
    await site.stop();
    await inside.stop();
  };
});

/** Names: `site.test` is the site; `turncoat.test` is it once, and somewhere inside from then on. */
function turncoat(): LookupFunction {
  let asked = 0;
  return (hostname, _options, callback) => {
    asked += hostname === "turncoat.test" ? 1 : 0;
    const address =
      hostname === "site.test" || (hostname === "turncoat.test" && asked === 1) ? "127.0.0.1" : "127.0.0.2";
    setImmediate(() => callback(null, [{ address, family: 4 }]));
  };
}

type Given = Partial<Rendering> & {
  readonly signal?: AbortSignal;
  readonly mayFetch?: (url: string) => Promise<boolean>;
  readonly renderer?: Renderer;
  readonly crawl?: string;
};

function rendererWith(options: Partial<ConstructorParameters<typeof Renderer>[0]> = {}): Renderer {
  return new Renderer({ userAgent: USER_AGENT, ...options }, { browser, clock: systemClock });
}

/** Fetches a page of the site and renders it. */
async function render(url: string, given: Given = {}): Promise<RenderedPage> {
  const {
    signal = new AbortController().signal,
    mayFetch = async () => true,
    renderer,
    crawl = "c",
    ...rendering
  } = given;
  const fetched = await fetcher.fetch({ url });
  const document = { ...fetched, body: await fetched.body.read(16 * MiB) };
  const place = await (renderer ?? rendererWith()).place(signal);
  if (place === undefined) throw new Error("no place to render");
  try {
    const { mode: _mode, ...defaults } = DEFAULT_RENDER_OPTIONS;
    return await place.render({
      document,
      crawl,
      rendering: { ...defaults, ...rendering },
      fetch: (request) => fetcher.fetch(request),
      mayFetch,
      signal,
    });
  } finally {
    place.leave();
  }
}

async function htmlOf(url: string, given: Given = {}): Promise<string> {
  const page = await render(url, given);
  if (page.kind !== "rendered") throw new Error(`left for ${page.to}`);
  return page.body.toString("utf8");
}

describe("a rendered page", () => {
  it("has what its scripts made of it, from data that they fetched", async () => {
    site
      .serve("/", `<!doctype html><title>plain</title><ul id=list></ul><script src=/app.js></script>`)
      .serve("/app.js", (_, response) => {
        response.setHeader("content-type", "text/javascript");
        response.end(`fetch("/data").then((answer) => answer.json()).then((names) => {
          for (const name of names) list.innerHTML += "<li><a href='/item/" + name + "'>" + name + "</a></li>";
          document.title = "made";
        })`);
      })
      .serve("/data", (_, response) => {
        response.setHeader("content-type", "application/json");
        response.end(JSON.stringify(["ä", "b"]));
      });
    const html = await htmlOf(site.url("/"));
    expect(html).toMatch(/^<!DOCTYPE html>\n<html>/);
    expect(html).toContain("<title>made</title>");
    expect(html).toContain(`<li><a href="/item/ä">ä</a></li>`);
    // The document itself was not asked for again.
    expect(site.requests).toEqual(["GET /", "GET /app.js", "GET /data"]);
  });

  it("is read in the charset that it is in", async () => {
    site.serve("/", (_, response) => {
      response.setHeader("content-type", "text/html; charset=windows-1251");
      response.end(Buffer.from([0x3c, 0x70, 0x3e, 0xcf, 0xf0, 0xe8]));
    });
    expect(await htmlOf(site.url("/"))).toContain("<p>При</p>");
  });

  it("is taken when an element is there that was waited for", async () => {
    site.serve(
      "/",
      `<script>setTimeout(() => document.body.innerHTML = "<b class=late>here</b>", 900)</script>`,
    );
    expect(await htmlOf(site.url("/"), { waitFor: { css: "b.late" } })).toContain("here");
  });

  it("is taken as it is when its time is up", async () => {
    site.serve("/", `<p>so far<script>setInterval(() => fetch("/more"), 100)</script>`);
    expect(await htmlOf(site.url("/"), { timeoutMs: 1_000 })).toContain("so far");
  });

  it("says who is there in the words of the crawler", async () => {
    site.serve("/", `<script>document.title = navigator.userAgent</script>`);
    expect(await htmlOf(site.url("/"))).toContain(`<title>${USER_AGENT}</title>`);
  });

  it("may give itself another path without a fetch", async () => {
    site.serve("/", `<script>history.pushState({}, "", "/shown?page=2#there")</script>`);
    const page = await render(site.url("/"));
    expect(page).toMatchObject({ kind: "rendered", url: site.url("/shown?page=2") });
    expect(site.requests).toEqual(["GET /"]);
  });

  it("is scrolled to its end as often as is asked for", async () => {
    site.serve(
      "/",
      `<div style="height:5000px"></div><script>
      addEventListener("scroll", () => { document.body.append(Object.assign(document.createElement("div"),
        { textContent: "more", style: "height:5000px" })) });</script>`,
    );
    const html = await htmlOf(site.url("/"), { scroll: 3 });
    expect(html.match(/>more</g)?.length).toBeGreaterThanOrEqual(3);
  });

  it("comes with a picture if one is asked for", async () => {
    site.serve("/", `<body style="background:red"><div style="height:3000px">`);
    const page = await render(site.url("/"), { screenshot: true });
    const png = page.kind === "rendered" ? page.screenshot : undefined;
    expect(png?.subarray(1, 4).toString()).toBe("PNG");
    expect(png?.readUInt32BE(16)).toBe(1_280);
    expect(png?.readUInt32BE(20)).toBeGreaterThanOrEqual(3_000);
  });

  it("leaves out images, media and fonts, unless they are asked for", async () => {
    site.serve("/", `<img src=/a.png><video src=/b.mp4></video><link rel=stylesheet href=/c.css>`);
    await htmlOf(site.url("/"));
    expect(site.requests).toEqual(["GET /", "GET /c.css"]);
    await htmlOf(site.url("/"), { blockedTypes: [] });
    expect(site.requests).toContain("GET /a.png");
  });

  it("is told by its cookies from no other page", async () => {
    const html = `<script>
      document.title = document.cookie + "|" + localStorage.getItem("seen");
      document.cookie = "mine=1"; localStorage.setItem("seen", "yes"); fetch("/asks");</script>`;
    const cookies: (string | undefined)[] = [];
    site
      .serve("/", (_, response) => {
        response.setHeader("set-cookie", ["a=1; Expires=Wed, 21 Oct 2037 07:28:00 GMT", "b=2; Path=/"]);
        response.setHeader("content-type", "text/html");
        response.end(html);
      })
      .serve("/asks", (request, response) => {
        cookies.push(request.headers.cookie);
        response.end();
      });
    for (let times = 0; times < 2; times += 1) {
      expect(await htmlOf(site.url("/"))).toContain("<title>a=1; b=2|null</title>");
    }
    expect(cookies).toEqual(["a=1; b=2; mine=1", "a=1; b=2; mine=1"]);
  });
});

describe("scripts and styles that pages of a crawl have in common", () => {
  it("are fetched once, if their server lets them be kept, and for no other crawl", async () => {
    const script = (control: string) => (_: unknown, response: ServerResponse) => {
      response.setHeader("content-type", "text/javascript");
      response.setHeader("cache-control", control);
      response.end("document.title += '.'");
    };
    site
      .serve("/", `<title>x</title><script src=/kept.js></script><script src=/asked.js></script>`)
      .serve("/kept.js", script("public, max-age=600"))
      .serve("/asked.js", script("no-cache"));
    const renderer = rendererWith();
    for (const crawl of ["one", "one", "two"]) {
      expect(await htmlOf(site.url("/"), { renderer, crawl })).toContain("<title>x..</title>");
    }
    expect(site.requests.filter((request) => request === "GET /kept.js")).toHaveLength(2);
    expect(site.requests.filter((request) => request === "GET /asked.js")).toHaveLength(3);
  });
});

describe("a page that wants to be elsewhere", () => {
  it.each([
    ["at once", `<script>location.href = "/next?a=1"</script>`],
    [
      "when it was loaded",
      `<script>onload = () => setTimeout(() => location.replace("/next?a=1"), 100)</script>`,
    ],
    ["by a click", `<a href="/next?a=1" id=go></a><script>go.click()</script>`],
    ["by a meta refresh", `<meta http-equiv=refresh content="0;url=/next?a=1">`],
  ])("is told as such, and not followed: %s", async (_, html) => {
    site.serve("/", html);
    expect(await render(site.url("/"))).toMatchObject({ kind: "left", to: site.url("/next?a=1") });
    expect(site.requests).toEqual(["GET /"]);
  });

  it("is kept where it is when it asks for itself, or posts a form", async () => {
    site.serve(
      "/",
      `<p>stays<form method=post action=/post id=form></form><script>
      if (location.hash === "") { location.hash = "x"; location.reload(); } setTimeout(() => form.submit(), 50)</script>`,
    );
    expect(await htmlOf(site.url("/"))).toContain("stays");
    expect(site.requests).toEqual(["GET /"]);
  });
});

describe("what a page asks for", () => {
  it("is asked of robots.txt, each hop of a redirect again", async () => {
    site
      .serve(
        "/",
        `<script src=/private/a.js></script><script src=/hop.js></script><iframe src=/private/frame></iframe>`,
      )
      .serve("/hop.js", (_, response) => void response.writeHead(302, { location: "/private/b.js" }).end());
    const asked: string[] = [];
    await htmlOf(site.url("/"), {
      mayFetch: async (url) => {
        asked.push(new URL(url).pathname);
        return !url.includes("/private/");
      },
    });
    expect(asked.sort()).toEqual(["/hop.js", "/private/a.js", "/private/b.js", "/private/frame"]);
    expect(site.requests).toEqual(["GET /", "GET /hop.js"]);
  });

  it("follows redirects to where it may", async () => {
    site
      .serve("/", `<script src=/hop.js></script>`)
      .serve("/hop.js", (_, response) => void response.writeHead(302, { location: "/there.js" }).end())
      .serve("/there.js", (_, response) => void response.end("document.title = 'arrived'"));
    expect(await htmlOf(site.url("/"))).toContain("<title>arrived</title>");
  });

  it("never comes from an address inside: not by script, frame, redirect, socket, beacon or worker", async () => {
    const at = (path: string) => `http://127.0.0.2:${inside.port}${path}`;
    const direct = `127.0.0.1:${inside.port}`;
    site
      .serve(
        "/",
        `<link rel=preconnect href="${at("/")}"><link rel=dns-prefetch href="//127.0.0.2:${inside.port}">
        <link rel=prefetch href="${at("/prefetch")}"><script src="${at("/script")}"></script><iframe src="${at("/frame")}"></iframe>
        <script>
          const told = [];
          const tell = (what) => (answer) => { told.push(what); document.title = told.sort().join(" "); };
          fetch("${at("/fetch")}", { mode: "no-cors" }).catch(tell("fetch"));
          fetch("/redirects").catch(tell("redirect"));
          fetch("http://localhost:${inside.port}/name").catch(tell("name"));
          fetch("http://2130706434:${inside.port}/number").catch(tell("number"));
          fetch("http://[::ffff:127.0.0.2]:${inside.port}/mapped").catch(tell("mapped"));
          new WebSocket("ws://127.0.0.2:${inside.port}/socket").onerror = tell("socket");
          new WebSocket("ws://${direct}/socket").onerror = tell("socket2");
          new EventSource("${at("/events")}").onerror = tell("events");
          navigator.sendBeacon("${at("/beacon")}", "x");
          new Worker(URL.createObjectURL(new Blob([\`
            new WebSocket("ws://${direct}/worker-socket").onerror = () => postMessage("worker-socket");
            fetch("${at("/worker")}").catch(() => postMessage("worker"));\`]))).onmessage = ({ data }) => tell(data)();
          new SharedWorker(URL.createObjectURL(new Blob([\`
            onconnect = ({ ports: [port] }) => fetch("${at("/shared")}").catch(() => port.postMessage("shared"))\`]))).port.onmessage = ({ data }) => tell(data)();
        </script>`,
      )
      .serve(
        "/redirects",
        (_, response) => void response.writeHead(307, { location: at("/redirected") }).end(),
      );
    const html = await htmlOf(site.url("/"), { blockedTypes: [] });
    expect(html).toContain(
      "<title>events fetch mapped name number redirect shared socket socket2 worker worker-socket</title>",
    );
    expect(inside.requests).toEqual([]);
    expect(inside.connections).toBe(0);
  });

  it("never comes from an address inside by a name that changes what it stands for", async () => {
    const url = (path: string) => site.url(path, "turncoat.test");
    site.serve("/", (_, response) => {
      // So that the next request needs a new connection, and the name's address anew.
      response.setHeader("connection", "close");
      response.setHeader("content-type", "text/html");
      response.end(`<p>first</p><script>fetch("/again").catch(() => document.title = "refused")</script>`);
    });
    expect(await htmlOf(url("/"))).toContain("<title>refused</title>");
    expect(site.requests).toEqual(["GET /"]);
  });

  it("sends nothing by UDP", async () => {
    const socket = createSocket("udp4");
    let packets = 0;
    socket.on("message", () => {
      packets += 1;
    });
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    const { port } = socket.address();
    try {
      site.serve(
        "/",
        `<iframe srcdoc="<p>"></iframe><script>
          const make = () => window.RTCPeerConnection ?? frames[0].RTCPeerConnection;
          document.title = typeof make();
          try {
            const peer = new (make())({ iceServers: [{ urls: "stun:127.0.0.1:${port}" }] });
            peer.createDataChannel("x"); peer.createOffer().then((offer) => peer.setLocalDescription(offer));
          } catch {}
        </script>`,
      );
      await htmlOf(site.url("/"));
      expect(packets).toBe(0);
    } finally {
      socket.close();
    }
  });

  it("is bounded in number", async () => {
    site.serve(
      "/",
      `<script>for (let i = 0; i < 1000; i++) fetch("/part?" + i).catch(() => {})</script><p>there`,
    );
    const renderer = rendererWith({ maxRequests: 50 });
    expect(await htmlOf(site.url("/"), { renderer })).toContain("there");
    expect(site.requests.length).toBe(51);
  });

  it("is bounded in bytes", async () => {
    site
      .serve(
        "/",
        `<script>(async () => { for (let i = 0; i < 100; i++) await fetch("/part?" + i).catch(() => {}) })()</script>`,
      )
      .serve("/part", (_, response) => void response.end(Buffer.alloc(MiB)));
    const page = await render(site.url("/"), { renderer: rendererWith({ maxBytes: 5 * MiB }) });
    expect(page.bytes).toBe(5 * MiB);
    expect(site.requests.length).toBe(6);
  });

  it("is bounded at the same time", async () => {
    let open = 0;
    let most = 0;
    site
      .serve("/", `<script>for (let i = 0; i < 40; i++) fetch("/part?" + i).catch(() => {})</script>`)
      .serve("/part", (_, response) => {
        open += 1;
        most = Math.max(most, open);
        setTimeout(() => {
          open -= 1;
          response.end("x");
        }, 20);
      });
    await htmlOf(site.url("/"), { renderer: rendererWith({ requestsAtOnce: 3 }) });
    expect(site.requests.length).toBe(41);
    expect(most).toBe(3);
  });

  it("is bounded in frames", async () => {
    const frames = Array.from({ length: 40 }, (_, index) => `<iframe src="/frame?${index}"></iframe>`);
    site.serve("/", frames.join("")).serve("/frame", "<p>frame");
    await htmlOf(site.url("/"), { renderer: rendererWith({ maxFrames: 5 }) });
    expect(site.requests.length).toBe(6);
  });
});

describe("a hostile page", () => {
  it.each([
    ["an endless loop", `<script>for (;;) {}</script>`],
    ["endless dialogs", `<script>for (;;) alert("again")</script>`],
    ["endless microtasks", `<script>(function again() { Promise.resolve().then(again) })()</script>`],
  ])("does not hold its place for longer than its time: %s", async (_, html) => {
    site.serve("/", html);
    await expect(render(site.url("/"), { timeoutMs: 500 })).rejects.toMatchObject({
      code: "RENDER",
      reason: "timeout",
      retryable: true,
    });
    site.serve("/after", "<p>well");
    expect(await htmlOf(site.url("/after"))).toContain("well");
  });

  it("opens no windows", async () => {
    site.serve(
      "/",
      `<p>alone<a target=_blank href=/popup id=go></a><form target=other action=/form id=form></form><script>
      for (let i = 0; i < 200; i++) { window.open("/popup"); go.click(); form.submit(); }</script>`,
    );
    expect(await htmlOf(site.url("/"), { timeoutMs: 5_000 })).toContain("alone");
    expect(site.requests).toEqual(["GET /"]);
  });

  it("downloads nothing", async () => {
    site
      .serve(
        "/",
        `<p>here<a href=/file download id=go></a><iframe src=/file></iframe><script>
        go.click(); location.href = "data:application/octet-stream,x";</script>`,
      )
      .serve("/file", (_, response) => {
        response.setHeader("content-disposition", "attachment; filename=evil.exe");
        response.setHeader("content-type", "application/octet-stream");
        response.end(Buffer.alloc(1_000));
      });
    const page = await render(site.url("/"));
    // By its link it would have left for the file: the engine judges that as a redirect.
    expect(page.kind === "left" ? page.to : page.body.toString()).toMatch(/\/file$|here/);
  });

  it("installs no service worker, and is granted nothing", async () => {
    site.serve("/worker.js", "").serve(
      "/",
      `<script>(async () => {
        await navigator.serviceWorker.register("/worker.js").catch(() => {});
        const workers = await navigator.serviceWorker.getRegistrations();
        const place = await new Promise((tell) => navigator.geolocation.getCurrentPosition(() => tell("here"), () => tell("nowhere")));
        document.title = workers.length + " " + Notification.permission + " " + place;
      })()</script>`,
    );
    expect(await htmlOf(site.url("/"))).toContain("<title>0 denied nowhere</title>");
    expect(site.requests).toEqual(["GET /"]);
  });

  it.each([
    ["in its heap", `const all = []; for (;;) all.push(new Array(1e6).fill(Math.random()))`],
    ["in buffers", `const all = []; setInterval(() => all.push(new Uint8Array(2e7).fill(1)), 10)`],
    [
      "in its document",
      `setInterval(() => { const d = document.createElement("div"); d.innerHTML = "<p>x".repeat(1e5); document.body.append(d) }, 1)`,
    ],
  ])("does not take more memory than it may: %s", async (_, script) => {
    site.serve("/", `<body><script>${script}</script>`);
    await expect(
      render(site.url("/"), { timeoutMs: 20_000, waitFor: { css: "#never" } }),
    ).rejects.toMatchObject({
      reason: expect.stringMatching(/spider-error|too-large/),
    });
    site.serve("/after", "<p>well");
    expect(await htmlOf(site.url("/after"))).toContain("well");
  });

  it("does not make a document larger than is taken", async () => {
    site.serve("/", `<body><script>document.body.innerHTML = "x".repeat(3e6)</script>`);
    const renderer = rendererWith({ maxDocumentBytes: MiB });
    await expect(render(site.url("/"), { renderer })).rejects.toMatchObject({
      reason: "too-large",
      retryable: false,
    });
  });

  it("cannot lie about its document by changing what reads it", async () => {
    site.serve(
      "/",
      `<p>true<script>
      Object.defineProperty(Element.prototype, "outerHTML", { get: () => "lie" });
      XMLSerializer.prototype.serializeToString = () => "lie";
      String.prototype.concat = Array.prototype.join = JSON.stringify = () => "lie";
      Object.defineProperty(document, "documentElement", { get: () => ({ outerHTML: "lie" }) });</script>`,
    );
    expect(await htmlOf(site.url("/"))).toContain("<p>true");
  });
});

describe("the browser", () => {
  it("renders no more pages at once than it may, and lets the next wait in vain when that takes too long", async () => {
    const renderer = rendererWith({ maxPages: 1, placeTimeoutMs: 50 });
    const { signal } = new AbortController();
    const first = await renderer.place(signal);
    expect(await renderer.place(signal)).toBeUndefined();
    first?.leave();
    const next = await renderer.place(signal);
    expect(next).toBeDefined();
    next?.leave();
  });

  it("closes a page at once when its task is stopped", async () => {
    site.serve("/", `<p>busy<script>fetch("/asked"); setTimeout(() => { for (;;) {} }, 500)</script>`);
    const stop = new AbortController();
    site.serve("/asked", () => stop.abort());
    const rendering = render(site.url("/"), { signal: stop.signal, timeoutMs: 40_000 });
    await expect(rendering).rejects.toThrow("stopped while it was rendered");
  });

  it("survives the crash of a page", async () => {
    site.serve("/", `<p>doomed<script>setTimeout(() => fetch("/crash"), 100)</script>`);
    const other = new Browser(PROGRAM, { clock: systemClock, logger });
    const renderer = new Renderer({ userAgent: USER_AGENT }, { browser: other, clock: systemClock });
    try {
      site.serve("/crash", () => {
        for (const pid of other.pids) process.kill(pid, "SIGKILL");
      });
      const failure = await render(site.url("/"), { renderer }).catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(RenderError);
      expect(failure).toMatchObject({ reason: "spider-error", retryable: true });
      site.serve("/after", "<p>well");
      expect(await htmlOf(site.url("/after"), { renderer })).toContain("well");
    } finally {
      await other.stop();
    }
  });

  it("is replaced after a number of pages", async () => {
    const other = new Browser({ ...PROGRAM, maxPages: 2 }, { clock: systemClock, logger });
    const renderer = new Renderer({ userAgent: USER_AGENT }, { browser: other, clock: systemClock });
    try {
      site.serve("/", "<p>well");
      await htmlOf(site.url("/"), { renderer });
      const [first] = other.pids;
      await htmlOf(site.url("/"), { renderer });
      await htmlOf(site.url("/"), { renderer });
      await expect.poll(() => other.pids).not.toContain(first);
      expect(other.pids.length).toBe(1);
    } finally {
      await other.stop();
    }
    // But for the one that serves the other tests.
    const folders = async () =>
      (await readdir(tmpdir())).filter((name) => name.startsWith(`warren-browser-${process.pid}-`));
    await expect.poll(async () => (await folders()).length).toBeLessThanOrEqual(1);
  });

  it("says what to do where there is none", async () => {
    const missing = new Browser({ path: "/nowhere/chromium" }, { clock: systemClock, logger });
    const renderer = new Renderer({ userAgent: USER_AGENT }, { browser: missing, clock: systemClock });
    site.serve("/", "<p>well");
    await expect(render(site.url("/"), { renderer })).rejects.toMatchObject({
      code: "NO_BROWSER",
      message: expect.stringMatching(/cannot render.*\/nowhere\/chromium.*apt-get install chromium/),
    });
    expect(await renderer.describe()).toMatchObject({ browser: null });
  });
});
