import { readFile } from "node:fs/promises";
import { createSecureServer as createHttp2, type Http2SecureServer } from "node:http2";
import { createServer as createHttps, type Server as HttpsServer } from "node:https";
import { type AddressInfo, createServer, type LookupFunction, type Server, type Socket } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { ConnectionsBusyError, DnsTimeoutError, FetchError } from "../../../src/crawl/errors.js";
import { Fetcher, type FetcherDeps, type FetcherOptions } from "../../../src/crawl/fetch/fetcher.js";
import { TestAuthority } from "../../support/certificates.js";
import { startWildSite, type WildSite } from "../../support/wild-site.js";

const MiB = 1_048_576;
const fetchers: Fetcher[] = [];
const servers: (Server | HttpsServer | Http2SecureServer)[] = [];
const sockets = new Set<Socket>();
let site: WildSite;
let authority: TestAuthority;
let ca: string;

beforeAll(async () => {
  site = await startWildSite({ alsoOn: Array.from({ length: 20 }, (_, n) => `127.0.0.${n + 2}`) });
  authority = await TestAuthority.create();
  ca = await readFile(authority.caFile, "utf8");
});
afterEach(async () => {
  for (const fetcher of fetchers.splice(0)) await fetcher.close();
  for (const socket of sockets) socket.destroy();
  for (const server of servers.splice(0)) await new Promise((done) => server.close(done));
});
afterAll(async () => {
  await site.close();
  await authority.dispose();
});

function setup(options: Partial<FetcherOptions> = {}, deps: FetcherDeps = {}): Fetcher {
  const fetcher = new Fetcher(
    { userAgent: "Warren/0.1", allowedNetworks: ["127.0.0.0/8"], ...options },
    deps,
  );
  fetchers.push(fetcher);
  return fetcher;
}

async function failure(act: Promise<unknown>): Promise<FetchError> {
  const error: unknown = await act.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(FetchError);
  return error as FetchError;
}

async function read(fetcher: Fetcher, url: string, http2 = false): Promise<string> {
  const fetched = await fetcher.fetch({ url, http2 });
  return (await fetched.body.read(MiB)).toString();
}

/** Every name has this address. */
const resolvesTo =
  (address: string): LookupFunction =>
  (_name, _options, callback) =>
    callback(null, [{ address, family: 4 }]);

async function listen(server: Server | HttpsServer | Http2SecureServer): Promise<number> {
  servers.push(server);
  server.on("connection", (socket: Socket) => {
    sockets.add(socket.on("error", () => {}).on("close", () => sockets.delete(socket)));
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return (server.address() as AddressInfo).port;
}

describe("each phase of a fetch", () => {
  it("has a limit of its own: the resolution of a name", async () => {
    const fetcher = setup({ dnsTimeoutMs: 30 }, { resolve: () => {} });
    const error = await failure(fetcher.fetch({ url: "http://silent.example/" }));
    expect(error).toMatchObject({ reason: "timeout", phase: "dns", retryable: true });
    expect(error.cause).toBeInstanceOf(DnsTimeoutError);
    expect(error.message).toContain("silent.example was not resolved within 30 ms");
  });

  it("has a limit of its own: TCP and TLS, but not the resolution before them", async () => {
    // Takes connections and says nothing: a TLS handshake never ends.
    const port = await listen(createServer());
    let resolved = 0;
    const fetcher = setup(
      { connectTimeoutMs: 60 },
      {
        resolve: (_name, _options, callback) => {
          setTimeout(() => {
            resolved += 1;
            callback(null, [{ address: "127.0.0.1", family: 4 }]);
          }, 120);
        },
      },
    );
    const error = await failure(fetcher.fetch({ url: `https://mute.example:${port}/` }));
    expect(resolved).toBe(1);
    expect(error).toMatchObject({ reason: "timeout", phase: "connect" });
    expect(error.message).toContain("no connection in time (60 ms)");
  });

  it("has a limit of its own: the headers", async () => {
    const error = await failure(
      setup({ headersTimeoutMs: 50 }).fetch({ url: `${site.origin}/never-headers` }),
    );
    expect(error).toMatchObject({ reason: "timeout", phase: "headers" });
    expect(error.message).toContain("no complete headers in time (50 ms)");
  });

  it("has a limit of its own: the time between two pieces of a body", async () => {
    const error = await failure(read(setup({ bodyTimeoutMs: 50 }), `${site.origin}/stalled`));
    expect(error).toMatchObject({ reason: "timeout", phase: "body" });
    expect(error.message).toContain("nothing more of the body in time (50 ms)");
  });

  it("counts towards the limit for all of them", async () => {
    const error = await failure(read(setup({ timeoutMs: 50 }), `${site.origin}/drip`));
    expect(error).toMatchObject({ reason: "timeout", phase: "all" });
    expect(error.message).toContain("not finished within 50 ms");
  });
});

describe("a body that only drips", () => {
  const slow = { minBytesPerSecond: 100_000, minRateWindowMs: 60 };

  it("is given up long before the other limits", async () => {
    const error = await failure(read(setup(slow), `${site.origin}/drip`));
    expect(error).toMatchObject({ reason: "timeout", phase: "body", retryable: true });
    expect(error.message).toMatch(/too slow: \d+ bytes of the body in \d+ ms/);
  });

  it("is not given up when no rate is asked for", async () => {
    const fetcher = setup({ ...slow, minBytesPerSecond: 0, timeoutMs: 400 });
    expect((await failure(read(fetcher, `${site.origin}/drip`))).phase).toBe("all");
  });

  it("is no slow body when its reader is slow", async () => {
    const fetcher = setup(slow);
    const fetched = await fetcher.fetch({ url: `${site.origin}/size/2000000` });
    let bytes = 0;
    for await (const chunk of fetched.body.stream(2_000_000)) {
      // Longer than the window: the connection is told to wait meanwhile.
      if (bytes === 0) await new Promise((done) => setTimeout(done, 300));
      bytes += chunk.length;
    }
    expect(bytes).toBe(2_000_000);
  });
});

describe("connections", () => {
  it("are never more at once than may be, whatever is asked for, and idle ones make room", async () => {
    const fetcher = setup({ maxConnections: 3 });
    let most = 0;
    const fetchOne = async (n: number) => {
      const fetched = await fetcher.fetch({ url: `${site.originOn(`127.0.0.${(n % 20) + 2}`)}/ok` });
      most = Math.max(most, fetcher.connections);
      await fetched.body.read(MiB);
    };
    await Promise.all(Array.from({ length: 60 }, (_, n) => fetchOne(n)));
    expect(most).toBe(3);
  });

  it("that do not come free in time are a time-out that says so", async () => {
    const fetcher = setup({ maxConnections: 1, connectTimeoutMs: 50 });
    const held = failure(fetcher.fetch({ url: `${site.origin}/never-headers?held` }));
    await site.arrived(1, "/never-headers?held");
    const error = await failure(fetcher.fetch({ url: `${site.originOn("127.0.0.2")}/ok` }));
    expect(error).toMatchObject({ reason: "timeout", phase: "connect", retryable: true });
    expect(error.cause).toBeInstanceOf(ConnectionsBusyError);
    await fetcher.close();
    await held;
  });

  it("leave nothing counted when they fail or are closed", async () => {
    const fetcher = setup({ maxConnections: 2, connectTimeoutMs: 500 });
    const gone = await startWildSite();
    await gone.close();
    for (let n = 0; n < 10; n += 1) await failure(fetcher.fetch({ url: gone.url }));
    expect(fetcher.connections).toBe(0);
    expect(await read(fetcher, `${site.origin}/ok`)).toContain("As it should be.");
    await fetcher.close();
    await expect.poll(() => fetcher.connections).toBe(0);
  });

  it("are not made for a fetch that was given up", async () => {
    let connections = 0;
    const server = createServer((socket) => {
      connections += 1;
      socket.once("data", () => socket.write(`HTTP/1.1 200 OK\r\n\r\n${"x".repeat(200_000)}`));
    });
    const port = await listen(server);
    const fetcher = setup();
    for (let n = 0; n < 5; n += 1) {
      const fetched = await fetcher.fetch({ url: `http://127.0.0.1:${port}/` });
      expect((await failure(fetched.body.read(100_000))).reason).toBe("too-large");
      await expect.poll(() => sockets.size).toBe(0);
    }
    expect(connections).toBe(5);
    expect(fetcher.connections).toBe(0);
  });

  it("that wait when the fetcher is closed end", async () => {
    const fetcher = setup({ maxConnections: 1 });
    const running = failure(fetcher.fetch({ url: `${site.origin}/never-headers?first` }));
    await site.arrived(1, "/never-headers?first");
    const waiting = failure(fetcher.fetch({ url: `${site.originOn("127.0.0.3")}/ok` }));
    await fetcher.close();
    expect((await running).reason).toBe("network");
    expect((await waiting).reason).toBe("network");
  });
});

describe("names", () => {
  it("are resolved once for many connections, and judged for each", async () => {
    let asked = 0;
    const resolve: LookupFunction = (_name, _options, callback) => {
      asked += 1;
      callback(null, [{ address: "127.0.0.1", family: 4 }]);
    };
    const fetcher = setup({}, { resolve });
    const url = `http://many.example:${site.port}/slow-body?ms=1`;
    await Promise.all(Array.from({ length: 10 }, () => read(fetcher, url)));
    expect(asked).toBe(1);
  });

  it("that come to public and private addresses are connected to at the permitted ones only", async () => {
    const resolve: LookupFunction = (_name, _options, callback) =>
      callback(null, [
        { address: "10.0.0.1", family: 4 },
        { address: "127.0.0.2", family: 4 },
        { address: "::1", family: 6 },
      ]);
    const fetcher = setup({ allowedNetworks: ["127.0.0.2/32"] }, { resolve });
    expect(await read(fetcher, `http://mixed.example:${site.port}/ok`)).toContain("As it should be.");
    expect(site.requests.at(-1)?.host).toBe(`mixed.example:${site.port}`);
  });
});

describe("certificates", () => {
  const serve = async (subject: string) => {
    const { certFile, keyFile } = await authority.issue("host", [`subjectAltName=${subject}`]);
    const [cert, key] = await Promise.all([readFile(certFile), readFile(keyFile)]);
    return listen(createHttps({ cert, key }, (_request, response) => response.end("over TLS")));
  };

  it("of an authority that is not trusted are refused for good, in plain words", async () => {
    const port = await serve("IP:127.0.0.1");
    const error = await failure(setup().fetch({ url: `https://127.0.0.1:${port}/` }));
    expect(error).toMatchObject({ reason: "network", retryable: false, phase: "connect" });
    expect(error.message).toContain("its certificate was signed by nobody who is trusted");
  });

  it("of an authority that was named are accepted, and still only for their own name", async () => {
    const port = await serve("DNS:inside.example");
    const fetcher = setup({ ca }, { resolve: resolvesTo("127.0.0.1") });
    expect(await read(fetcher, `https://inside.example:${port}/`)).toBe("over TLS");
    const error = await failure(fetcher.fetch({ url: `https://other.example:${port}/` }));
    expect(error).toMatchObject({ reason: "network", retryable: false });
    expect(error.message).toContain("its certificate is for another name");
  });
});

describe("HTTP/2", () => {
  type Seen = { version: string; host: string; port: number | undefined };

  /** Speaks both versions, for two names that one certificate covers. */
  const serve = async (seen: Seen[] = []) => {
    const { certFile, keyFile } = await authority.issue("two", [
      "subjectAltName=DNS:a.example,DNS:b.example",
    ]);
    const [cert, key] = await Promise.all([readFile(certFile), readFile(keyFile)]);
    const server = createHttp2({ cert, key, allowHTTP1: true }, (request, response) => {
      const host = request.headers[":authority"] ?? request.headers.host ?? "";
      seen.push({ version: request.httpVersion, host, port: request.socket.remotePort });
      switch (request.url) {
        case "/many-headers":
          for (let n = 0; n < 60; n += 1) response.setHeader(`x-${n}`, "v");
          break;
        case "/large-headers":
          response.setHeader("x-large", "v".repeat(8_000));
          break;
        case "/never":
          return;
        case "/drip":
          response.write("a");
          return;
        case "/endless": {
          const more = () => {
            while (response.write(Buffer.alloc(16_384))) {}
          };
          response.on("drain", more).on("error", () => {});
          more();
          return;
        }
        case "/reset":
          request.stream.close(2);
          return;
        case "/goaway":
          request.stream.session?.goaway(1);
          return;
      }
      response.end(`HTTP ${request.httpVersion}`);
    });
    server.on("sessionError", () => {});
    return { port: await listen(server), seen };
  };
  const http2Fetcher = (options: Partial<FetcherOptions> = {}) =>
    setup({ ca, ...options }, { resolve: resolvesTo("127.0.0.1") });

  it("is spoken when it is asked for, and not otherwise", async () => {
    const { port } = await serve();
    const fetcher = http2Fetcher();
    expect(await read(fetcher, `https://a.example:${port}/`, true)).toBe("HTTP 2.0");
    expect(await read(fetcher, `https://a.example:${port}/`)).toBe("HTTP 1.1");
  });

  it("falls back to HTTP/1.1 where a server does not know it, and without TLS", async () => {
    const fetcher = http2Fetcher();
    expect(await read(fetcher, `${site.origin}/ok`, true)).toContain("As it should be.");
  });

  it("serves one host on a connection, although its certificate covers another at the same address", async () => {
    const { port, seen } = await serve();
    const fetcher = http2Fetcher();
    for (const host of ["a.example", "b.example", "a.example"]) {
      await read(fetcher, `https://${host}:${port}/`, true);
    }
    expect(seen.map(({ host }) => host)).toEqual([
      `a.example:${port}`,
      `b.example:${port}`,
      `a.example:${port}`,
    ]);
    expect(seen[0]?.port).not.toBe(seen[1]?.port);
    expect(seen[0]?.port).toBe(seen[2]?.port);
  });

  it("keeps to the same limits", async () => {
    const { port } = await serve();
    const at = (path: string) => `https://a.example:${port}${path}`;
    const generous = { maxHeaders: 50, maxHeaderBytes: 4_096 };
    const fetcher = http2Fetcher(generous);
    const outcomes: unknown[] = [];
    for (const [path, limits] of [
      ["/many-headers", {}],
      ["/large-headers", {}],
      ["/never", { headersTimeoutMs: 100 }],
      ["/drip", { bodyTimeoutMs: 100 }],
      ["/endless", {}],
      ["/reset", {}],
    ] as const) {
      const { reason, phase } = await failure(read(http2Fetcher({ ...generous, ...limits }), at(path), true));
      outcomes.push([path, reason, phase]);
    }
    expect(outcomes).toEqual([
      ["/many-headers", "too-large", "headers"],
      ["/large-headers", "too-large", "headers"],
      ["/never", "timeout", "headers"],
      ["/drip", "timeout", "body"],
      ["/endless", "too-large", undefined],
      ["/reset", "network", "headers"],
    ]);
    expect(await read(fetcher, at("/"), true)).toBe("HTTP 2.0");
  });

  it("survives a server that sends everyone away", async () => {
    const { port } = await serve();
    const fetcher = http2Fetcher();
    const at = (path: string) => `https://a.example:${port}${path}`;
    const ends = await Promise.allSettled(
      Array.from({ length: 8 }, () => read(fetcher, at("/goaway"), true)),
    );
    for (const end of ends) if (end.status === "rejected") expect(end.reason).toBeInstanceOf(FetchError);
    expect(await read(fetcher, at("/"), true)).toBe("HTTP 2.0");
    await fetcher.close();
    await expect.poll(() => sockets.size).toBe(0);
  });

  it("is refused addresses like any other", async () => {
    const { port } = await serve();
    const fetcher = setup({ ca, allowedNetworks: [] }, { resolve: resolvesTo("127.0.0.1") });
    expect((await failure(read(fetcher, `https://a.example:${port}/`, true))).reason).toBe("address");
  });
});
