import * as zlib from "node:zlib";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { AddressRefusedError, FetchError, type FetchFailure } from "../../../src/crawl/errors.js";
import { Fetcher, type FetcherOptions } from "../../../src/crawl/fetch/fetcher.js";
import { PDF_BYTES, startWildSite, type WildSite } from "../../support/wild-site.js";

let site: WildSite;
const fetchers: Fetcher[] = [];

beforeAll(async () => {
  site = await startWildSite({ alsoOn: ["127.0.0.2", "127.0.0.3", "127.0.0.4"] });
});
afterEach(async () => {
  for (const fetcher of fetchers.splice(0)) await fetcher.close();
});
afterAll(() => site.close());

const MiB = 1_048_576;

function setup(options: Partial<FetcherOptions> = {}): Fetcher {
  const fetcher = new Fetcher({
    userAgent: "Warren/0.1 (+https://example.org/)",
    allowedNetworks: ["127.0.0.0/8"],
    ...options,
  });
  fetchers.push(fetcher);
  return fetcher;
}

async function read(path: string, maxBytes = 16 * MiB, fetcher = setup()): Promise<Buffer> {
  const fetched = await fetcher.fetch({ url: site.origin + path });
  return fetched.body.read(maxBytes);
}

async function failure(act: Promise<unknown>): Promise<FetchError> {
  const error = await act.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(FetchError);
  return error as FetchError;
}

async function collect(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

describe("a fetch", () => {
  it("yields status, headers, type and body", async () => {
    const fetched = await setup().fetch({ url: `${site.origin}/ok#part` });
    expect(fetched.statusCode).toBe(200);
    expect(fetched.contentType).toBe("text/html");
    expect(fetched.headers["content-type"]).toBe("text/html; charset=utf-8");
    expect((await fetched.body.read(MiB)).toString()).toContain("As it should be.");
  });

  it("names itself and says what it takes", async () => {
    const echo: unknown = JSON.parse((await read("/echo?a=b%20c")).toString());
    expect(echo).toMatchObject({
      method: "GET",
      url: "/echo?a=b%20c",
      headers: {
        "user-agent": "Warren/0.1 (+https://example.org/)",
        "accept-encoding": expect.stringMatching(/^gzip, deflate, br(, zstd)?$/),
        accept: expect.stringContaining("text/html"),
      },
    });
  });

  it("sends method, headers and body as asked, but not headers that frame the message", async () => {
    const fetched = await setup().fetch({
      url: `${site.origin}/echo`,
      method: "POST",
      headers: {
        "X-Own": "yes",
        "User-Agent": "Other",
        Host: "elsewhere.example",
        "Content-Length": "3",
        "Transfer-Encoding": "chunked",
      },
      body: "a=b&c=d",
    });
    const echo: unknown = JSON.parse((await fetched.body.read(MiB)).toString());
    expect(echo).toMatchObject({
      method: "POST",
      body: "a=b&c=d",
      headers: {
        "x-own": "yes",
        "user-agent": "Other",
        host: `127.0.0.1:${site.port}`,
        "content-length": "7",
      },
    });
  });

  it("refuses header values that would forge further headers", async () => {
    const error = await failure(
      setup().fetch({ url: `${site.origin}/ok`, headers: { "x-bad": "a\r\nx-forged: b" } }),
    );
    expect(error).toMatchObject({ reason: "network", retryable: false });
  });

  it("follows no redirect", async () => {
    const fetched = await setup().fetch({ url: `${site.origin}/redirect/2` });
    expect([fetched.statusCode, fetched.headers.location]).toEqual([302, "/redirect/1"]);
    fetched.body.discard();
  });

  it("reads a redirect's target as UTF-8 when it is not written in ASCII", async () => {
    const fetched = await setup().fetch({ url: `${site.origin}/redirect-utf8` });
    expect(fetched.headers.location).toBe("/café");
    fetched.body.discard();
  });

  it("joins repeated headers", async () => {
    const fetched = await setup().fetch({ url: `${site.origin}/cookies` });
    expect(fetched.headers["set-cookie"]).toBe("a=1, b=2");
    fetched.body.discard();
  });

  it.each([
    ["text/html", "text/html"],
    ["TEXT/HTML;charset=x", "text/html"],
    ["application/pdf ; a=b", "application/pdf"],
    ["nonsense", undefined],
    ["", undefined],
  ])("reads the type %j as %j", async (is, expected) => {
    const fetched = await setup().fetch({ url: `${site.origin}/type?is=${encodeURIComponent(is)}` });
    expect(fetched.contentType).toBe(expected);
    fetched.body.discard();
  });

  it("reads nothing from a HEAD response, whatever length it claims", async () => {
    const fetched = await setup().fetch({ url: `${site.origin}/size/5000000`, method: "HEAD" });
    expect(fetched.headers["content-length"]).toBe("5000000");
    expect(await fetched.body.read(10)).toHaveLength(0);
  });

  it.each([204, 304, 404, 429, 503])("is a result with status %i, not an error", async (status) => {
    const fetched = await setup().fetch({ url: `${site.origin}/status/${status}?retry-after=7` });
    expect(fetched.statusCode).toBe(status);
    expect(fetched.headers["retry-after"]).toBe("7");
    await fetched.body.read(MiB);
  });

  it.each(["ftp://127.0.0.1/", "no url", "mailto:a@b.example"])("refuses %j", async (url) => {
    expect(await failure(setup().fetch({ url }))).toMatchObject({ reason: "network", retryable: false });
  });
});

describe("a body", () => {
  it.each(["gzip", "x-gzip", "deflate", "deflate-raw", "br", "br-gzip", "gzip-no-trailer", "odd-encoding"])(
    "comes decoded from /%s, read whole or streamed, looked into before or not",
    async (route) => {
      const expected = "<!doctype html><title>Fine</title><p>As it should be.</p>";
      const fetcher = setup();
      expect((await read(`/${route}`, MiB, fetcher)).toString()).toBe(expected);

      const streamed = await fetcher.fetch({ url: `${site.origin}/${route}` });
      expect((await collect(streamed.body.stream(MiB))).toString()).toBe(expected);

      const peeked = await fetcher.fetch({ url: `${site.origin}/${route}` });
      expect((await peeked.body.peek(9)).toString()).toBe("<!doctype");
      expect((await peeked.body.peek(15)).toString()).toBe("<!doctype html>");
      expect((await peeked.body.read(MiB)).toString()).toBe(expected);

      const both = await fetcher.fetch({ url: `${site.origin}/${route}` });
      await both.body.peek(16);
      expect((await collect(both.body.stream(MiB))).toString()).toBe(expected);
    },
  );

  it.runIf("zstdCompressSync" in zlib)("comes decoded from zstd where Node knows it", async () => {
    const { zstdCompressSync } = zlib as unknown as { zstdCompressSync: (body: Buffer) => Buffer };
    // Too varied to shrink to the few bytes from which a beginning is told.
    const words = Array.from({ length: 20_000 }, (_, n) => (n * 2_654_435_761).toString(36));
    const plain = Buffer.from(`a page in zstd ${words.join(" ")}`);
    site.page("/zstd", { body: zstdCompressSync(plain), headers: { "content-encoding": "zstd" } });
    const fetcher = setup();
    expect((await read("/zstd", MiB, fetcher)).equals(plain)).toBe(true);
    const streamed = await fetcher.fetch({ url: `${site.origin}/zstd` });
    expect((await streamed.body.peek(6)).toString()).toBe("a page");
    expect((await collect(streamed.body.stream(MiB))).equals(plain)).toBe(true);
    expect(await failure(read("/zstd", plain.length - 1, fetcher))).toMatchObject({ reason: "too-large" });
  });

  it("may be empty although it claims an encoding", async () => {
    expect(await read("/gzip-empty")).toHaveLength(0);
    const fetched = await setup().fetch({ url: `${site.origin}/gzip-empty` });
    expect(await fetched.body.peek(16)).toHaveLength(0);
    expect(await collect(fetched.body.stream(MiB))).toHaveLength(0);
  });

  it("shows fewer bytes than were asked for when it has no more", async () => {
    const fetched = await setup().fetch({ url: `${site.origin}/size/3` });
    expect((await fetched.body.peek(16)).toString()).toBe("sss");
    expect((await fetched.body.read(3)).toString()).toBe("sss");
  });

  it("arrives whole when it is far larger than what is held for a reader", async () => {
    const fetched = await setup().fetch({ url: `${site.origin}/size/20000000` });
    await fetched.body.peek(1);
    let bytes = 0;
    for await (const chunk of fetched.body.stream(20_000_000)) bytes += chunk.length;
    expect(bytes).toBe(20_000_000);
    expect(await read("/size/20000000", 20_000_000)).toHaveLength(20_000_000);
  });

  it("is kept byte for byte", async () => {
    const fetched = await setup().fetch({ url: `${site.origin}/pdf-gzip` });
    expect((await fetched.body.peek(5)).toString()).toBe("%PDF-");
    expect((await collect(fetched.body.stream(MiB))).equals(PDF_BYTES)).toBe(true);
  });

  it.each(["/size/1000", "/chunked-size/1000"])("of exactly the limit is taken from %s", async (path) => {
    expect(await read(path, 1_000)).toHaveLength(1_000);
    expect(await failure(read(path, 999))).toMatchObject({ reason: "too-large", retryable: false });
  });

  it.each(["/gzip-bomb", "/br-bomb", "/double-bomb", "/endless-body", "/claims-too-much", "/size/2000000"])(
    "is given up at the limit from %s, however it is read",
    async (path) => {
      const fetcher = setup();
      expect(await failure(read(path, MiB, fetcher))).toMatchObject({
        reason: "too-large",
        retryable: false,
      });

      const fetched = await fetcher.fetch({ url: site.origin + path });
      let bytes = 0;
      const error = await failure(
        (async () => {
          for await (const chunk of fetched.body.stream(MiB)) bytes += chunk.length;
        })(),
      );
      expect(error).toMatchObject({ reason: "too-large", retryable: false });
      expect(bytes).toBeLessThanOrEqual(MiB);

      const peeked = await fetcher.fetch({ url: site.origin + path });
      await peeked.body.peek(16);
      expect(await failure(peeked.body.read(MiB))).toMatchObject({ reason: "too-large" });
    },
  );

  it.each(["gzip-not", "gzip-broken", "unknown-encoding", "many-encodings"])(
    "that does not decode is a decode error: /%s",
    async (route) => {
      const fetcher = setup();
      expect(await failure(read(`/${route}`, MiB, fetcher))).toMatchObject({
        reason: "decode",
        retryable: false,
      });
      const streamed = fetcher
        .fetch({ url: `${site.origin}/${route}` })
        .then((fetched) => collect(fetched.body.stream(MiB)));
      expect(await failure(streamed)).toMatchObject({ reason: "decode" });
    },
  );

  it("that is left early by its consumer ends the fetch at the server", async () => {
    const fetched = await setup().fetch({ url: `${site.origin}/endless-body?left` });
    for await (const chunk of fetched.body.stream(Number.POSITIVE_INFINITY)) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
    await ended("/endless-body?left");
  });

  it("that is discarded ends the fetch at the server when it is long", async () => {
    for (const path of ["/endless-body?unwanted", "/claims-too-much?unwanted"]) {
      const fetched = await setup().fetch({ url: site.origin + path });
      fetched.body.discard();
      await ended(path);
    }
  });

  it("that is discarded leaves its connection to the next fetch when it is short", async () => {
    const fetcher = setup({ connectionsPerHost: 1 });
    const ports = new Set<number | undefined>();
    site.page("/port", (request, response) => {
      ports.add(request.socket.remotePort);
      response.end("a short page");
    });
    for (let n = 0; n < 5; n += 1) (await fetcher.fetch({ url: `${site.origin}/port` })).body.discard();
    expect(ports.size).toBe(1);
  });
});

describe("a server with bad manners", () => {
  it.each<[string, FetchFailure]>([
    ["garbage", "network"],
    ["garbage-status", "network"],
    ["garbage-header", "network"],
    ["null-header", "network"],
    ["http-0.9", "network"],
    ["no-answer", "network"],
    ["reset", "network"],
    ["reset-in-body", "network"],
    ["short-body", "network"],
    ["cut-chunks", "network"],
    ["bad-chunk", "network"],
    ["two-lengths", "network"],
    ["length-and-chunks", "network"],
    ["switching", "network"],
    ["huge-header", "too-large"],
    ["many-headers", "too-large"],
    ["endless-headers", "too-large"],
  ])("gets a plain error for /%s", async (route, reason) => {
    const error = await failure(read(`/${route}`));
    expect(error.reason).toBe(reason);
    expect(error.retryable).toBe(reason === "network");
    expect(error.message).toContain(`${site.origin}/${route}`);
  });

  it("cannot announce an answer for ever", async () => {
    const error = await failure(read("/interim-flood"));
    expect(error).toMatchObject({ reason: "network", phase: "headers" });
    expect(error.message).toContain("more than 20 interim responses");
  });

  it.each(["never-headers", "half-status-line", "drip-headers", "drip", "stalled"])(
    "cannot hold a fetch beyond its time: /%s",
    async (route) => {
      const error = await failure(read(`/${route}`, MiB, setup({ timeoutMs: 150 })));
      expect(error).toMatchObject({ reason: "timeout", retryable: true });
    },
  );

  it.each(["drip", "stalled"])("cannot hold a stream beyond its time: /%s", async (route) => {
    const fetched = await setup({ timeoutMs: 150 }).fetch({ url: `${site.origin}/${route}` });
    expect(await failure(collect(fetched.body.stream(MiB)))).toMatchObject({ reason: "timeout" });
  });

  it("cannot keep a connection that nobody reads from", async () => {
    const fetched = await setup({ timeoutMs: 100 }).fetch({ url: `${site.origin}/endless-body?unread` });
    await ended("/endless-body?unread");
    expect(await failure(fetched.body.read(MiB))).toMatchObject({ reason: "timeout" });
  });

  it.each([
    ["interim", "ok"],
    ["long-body", "hello"],
    ["two-answers", "ok"],
    ["until-close", "until the end"],
  ])("is understood where it can be: /%s", async (route, expected) => {
    expect((await read(`/${route}`)).toString()).toBe(expected);
  });

  it("does not answer one request with the rest of another's response", async () => {
    const fetcher = setup({ connectionsPerHost: 1 });
    await read("/two-answers", MiB, fetcher);
    expect((await read("/ok", MiB, fetcher)).toString()).toContain("As it should be.");
  });

  it("that is not there is a network error worth another try", async () => {
    const gone = await startWildSite();
    await gone.close();
    const error = await failure(setup().fetch({ url: gone.url }));
    expect(error).toMatchObject({ reason: "network", retryable: true });
    expect(error.message).toContain("ECONNREFUSED");
  });

  it("leaves the fetcher working for others", async () => {
    const fetcher = setup({ timeoutMs: 300 });
    const routes = [
      "garbage",
      "reset",
      "endless-headers",
      "drip",
      "gzip-bomb",
      "short-body",
      "never-headers",
    ];
    await Promise.all(routes.map((route) => failure(read(`/${route}`, MiB, fetcher))));
    expect((await read("/ok", MiB, fetcher)).toString()).toContain("As it should be.");
  });
});

describe("responses mangled at random", () => {
  it("all end in a response or in a plain error, and nothing is left open", async () => {
    let seed = 99;
    const random = (below: number) => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed % below;
    };
    const sound = [
      "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 20\r\n\r\n<p>twenty bytes..</p>",
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\nx-t: y\r\n\r\n",
      "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.0 302 Found\r\nlocation: /x\r\nkeep-alive: timeout=1\r\n\r\n",
      "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: keep-alive\r\ncontent-length: 8\r\n\r\n\x1f\x8b\x08\0\0\0\0\0",
    ];
    const mangled = await startWildSite();
    mangled.page("/mangled", (request) => {
      const bytes = Buffer.from(sound[random(sound.length)] ?? "", "latin1");
      for (let change = random(6); change > 0; change -= 1) bytes[random(bytes.length)] = random(256);
      const cut = random(3) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes;
      if (random(2) === 0) request.socket.end(cut);
      else request.socket.write(cut);
    });
    const fetcher = setup({ timeoutMs: 250 });
    const outcomes = new Map<string, number>();
    const fetchOne = async () => {
      let outcome: string;
      try {
        const fetched = await fetcher.fetch({ url: `${mangled.origin}/mangled` });
        if (random(3) === 0) fetched.body.discard();
        else if (random(2) === 0) await fetched.body.read(1_000);
        else await collect(fetched.body.stream(1_000));
        outcome = "response";
      } catch (error) {
        expect(error).toBeInstanceOf(FetchError);
        outcome = (error as FetchError).reason;
      }
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    };
    for (let round = 0; round < 20; round += 1) await Promise.all(Array.from({ length: 40 }, fetchOne));
    // Each kind is there, however slow the machine: the mangling is neither too mild nor too rough.
    for (const outcome of ["response", "network", "timeout"]) {
      expect(outcomes.get(outcome), outcome).toBeGreaterThan(0);
    }
    await fetcher.close();
    await expect.poll(() => mangled.connections(), { timeout: 5_000 }).toBe(0);
    await mangled.close();
  });
});

describe("a signal", () => {
  it("that is aborted already sends nothing", async () => {
    const before = site.requests.length;
    const error = await failure(setup().fetch({ url: site.url, signal: AbortSignal.abort() }));
    expect(error.reason).toBe("network");
    expect(site.requests).toHaveLength(before);
  });

  it("ends a fetch that waits for headers", async () => {
    const stop = new AbortController();
    const fetching = failure(
      setup().fetch({ url: `${site.origin}/never-headers?signal`, signal: stop.signal }),
    );
    await site.arrived(1, "/never-headers?signal");
    stop.abort(new Error("closed"));
    expect((await fetching).cause).toEqual(new Error("closed"));
    await ended("/never-headers?signal");
  });

  it("ends a fetch in its body", async () => {
    const stop = new AbortController();
    const fetched = await setup().fetch({ url: `${site.origin}/drip?signal`, signal: stop.signal });
    const reading = failure(fetched.body.read(MiB));
    stop.abort();
    await reading;
    await ended("/drip?signal");
  });
});

describe("addresses", () => {
  it.each([
    "127.0.0.1",
    "2130706433",
    "0x7f.1",
    "017700000001",
    "127.1",
    "localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "169.254.169.254",
    "10.0.0.1",
    "0.0.0.0",
    "[::]",
    "[fe80::1]",
    "[fd00::1]",
  ])("that are not public are never connected to: %s", async (host) => {
    const before = site.requests.length;
    const fetcher = setup({ allowedNetworks: [], connectTimeoutMs: 1_000 });
    const error = await failure(fetcher.fetch({ url: `http://${host}:${site.port}/ok` }));
    expect(error).toMatchObject({ reason: "address", retryable: false });
    expect(error.cause).toBeInstanceOf(AddressRefusedError);
    expect(site.requests).toHaveLength(before);
  });

  it("are checked each time a name is resolved, so that a name cannot change its mind", async () => {
    const answers = ["127.0.0.2", "127.0.0.9", "127.0.0.9"];
    const fetcher = new Fetcher(
      { userAgent: "Warren/0.1", maxPools: 1, allowedNetworks: ["127.0.0.2/32"], dnsCacheMs: 0 },
      {
        resolve: (_name, _options, callback) =>
          callback(null, [{ address: answers.shift() ?? "127.0.0.9", family: 4 }]),
      },
    );
    fetchers.push(fetcher);
    const url = `http://rebinding.example:${site.port}/no-answer`;
    expect((await failure(fetcher.fetch({ url }))).reason).toBe("network");
    expect((await failure(fetcher.fetch({ url }))).reason).toBe("address");
  });

  it("of a name that does not resolve are a network error", async () => {
    const fetcher = new Fetcher(
      { userAgent: "Warren/0.1" },
      {
        resolve: (name, _options, callback) =>
          callback(Object.assign(new Error(`getaddrinfo ENOTFOUND ${name}`), { code: "ENOTFOUND" }), "", 0),
      },
    );
    fetchers.push(fetcher);
    const error = await failure(fetcher.fetch({ url: "http://nowhere.example/" }));
    expect(error).toMatchObject({ reason: "network", retryable: true });
  });
});

describe("connections", () => {
  it("are kept for as many origins as are wanted", async () => {
    const fetcher = setup({ maxPools: 2 });
    for (let round = 0; round < 3; round += 1) {
      for (const address of ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"]) {
        const fetched = await fetcher.fetch({ url: `${site.originOn(address)}/ok` });
        await fetched.body.read(MiB);
        expect(fetcher.pools).toBeLessThanOrEqual(2);
      }
    }
  });

  it("of an origin in use are not closed to make room", async () => {
    const fetcher = setup({ maxPools: 1 });
    const slow = await fetcher.fetch({ url: `${site.origin}/slow-body?ms=20&pieces=3` });
    const other = await fetcher.fetch({ url: `${site.originOn("127.0.0.2")}/ok` });
    await other.body.read(MiB);
    expect((await slow.body.read(MiB)).toString()).toBe("<p>piece</p>".repeat(3));
  });

  it("are all gone after close, and so is what ran on them", async () => {
    const fetcher = setup();
    const running = failure(fetcher.fetch({ url: `${site.origin}/never-headers?close` }));
    await site.arrived(1, "/never-headers?close");
    await fetcher.close();
    expect((await running).reason).toBe("network");
    await ended("/never-headers?close");
    expect((await failure(fetcher.fetch({ url: site.url }))).message).toContain("closed");
  });
});

/** Resolves when the server has seen the end of the first request for this path. */
async function ended(path: string): Promise<void> {
  await expect.poll(() => site.requestsOf(path)[0]?.endedAt, { timeout: 5_000 }).toBeDefined();
}
