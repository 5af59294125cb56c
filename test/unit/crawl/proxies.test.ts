import { readFile } from "node:fs/promises";
import { createSecureServer, type Http2SecureServer } from "node:http2";
import type { AddressInfo, LookupFunction } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { AddressRefusedError, FetchError, ProxyError } from "../../../src/crawl/errors.js";
import { Fetcher, type FetcherOptions } from "../../../src/crawl/fetch/fetcher.js";
import { ProxyRotation, proxyOf } from "../../../src/crawl/fetch/proxies.js";
import { ManualClock } from "../../../src/lib/clock.js";
import { TestAuthority } from "../../support/certificates.js";
import { ProxyServer } from "../../support/proxy-server.js";
import { startWildSite, type WildSite } from "../../support/wild-site.js";

const MiB = 1_048_576;
const clock = new ManualClock();
let site: WildSite;
let proxies: ProxyServer[] = [];
let fetchers: Fetcher[] = [];

beforeAll(async () => {
  site = await startWildSite({ alsoOn: ["127.0.0.2"] });
});
beforeEach(async () => {
  proxies = await Promise.all([ProxyServer.start(), ProxyServer.start()]);
});
afterEach(async () => {
  for (const fetcher of fetchers) await fetcher.close();
  fetchers = [];
  for (const proxy of proxies) await proxy.close();
});
afterAll(() => site.close());

const resolve: LookupFunction = (name, _options, callback) =>
  name.endsWith(".example")
    ? callback(null, [{ address: name.startsWith("inside") ? "10.0.0.1" : "127.0.0.1", family: 4 }])
    : callback(Object.assign(new Error(name), { code: "ENOTFOUND" }), "", 0);

function setup(options: Partial<FetcherOptions> = {}): Fetcher {
  const fetcher = new Fetcher(
    { userAgent: "Warren/0.1", allowedNetworks: ["127.0.0.0/8"], ...options },
    { resolve, clock },
  );
  fetchers.push(fetcher);
  return fetcher;
}

async function read(fetcher: Fetcher, url: string, through: readonly ProxyServer[] = proxies, http2 = false) {
  const fetched = await fetcher.fetch({ url, http2, proxies: through.map((proxy) => proxyOf(proxy.url)) });
  return (await fetched.body.read(MiB)).toString();
}

async function failure(act: Promise<unknown>): Promise<FetchError> {
  const error: unknown = await act.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(FetchError);
  return error as FetchError;
}

const first = () => proxies[0] as ProxyServer;
const second = () => proxies[1] as ProxyServer;

describe("a fetch through proxies", () => {
  it("asks for the address that was judged here, and names the host to the server only", async () => {
    const fetcher = setup();
    const url = `http://named.example:${site.port}/ok`;
    expect(await read(fetcher, url, [first()])).toContain("As it should be.");
    expect(first().asked).toEqual([`127.0.0.1:${site.port}`]);
    expect(site.requests.at(-1)?.host).toBe(`named.example:${site.port}`);
    expect(site.requests.at(-1)?.headers).not.toHaveProperty("proxy-authorization");
  });

  it("goes through them in turn, and keeps its connections", async () => {
    const fetcher = setup();
    for (let n = 0; n < 6; n += 1) await read(fetcher, `${site.origin}/ok`);
    // Each has one tunnel to this host, used three times.
    expect(proxies.map(({ asked }) => asked.length)).toEqual([1, 1]);
    await fetcher.close();
    await expect.poll(() => first().connections + second().connections).toBe(0);
    expect(fetcher.connections).toBe(0);
  });

  it("sends a user and password to the proxy and shows them nowhere", async () => {
    const url = first().url.replace("//", "//us%20er:p%40ss@");
    const fetcher = setup();
    const fetched = await fetcher.fetch({ url: `${site.origin}/echo`, proxies: [proxyOf(url)] });
    expect((await fetched.body.read(MiB)).toString()).not.toContain("authorization");
    expect(first().credentials).toEqual([`Basic ${Buffer.from("us er:p@ss").toString("base64")}`]);
    first().mood = "refuse";
    const other = `${site.originOn("127.0.0.2")}/ok`;
    const error = await failure(fetcher.fetch({ url: other, proxies: [proxyOf(url)] }));
    expect(error.message).toContain(`proxy ${first().url}: answered CONNECT with status 407`);
    expect(`${error.stack} ${String(error.cause)}`).not.toContain("p%40ss");
  });

  it.each(["refuse", "drop", "hang"] as const)("tries the next one when one fails: %s", async (mood) => {
    first().mood = mood;
    const fetcher = setup({ connectTimeoutMs: 200 });
    for (let n = 0; n < 4; n += 1) expect(await read(fetcher, `${site.origin}/ok`)).toContain("As it");
    // Set aside after its first failure, it is not asked again.
    expect(first().asked).toHaveLength(1);
  });

  it("tries one again that was set aside, once its time is over", async () => {
    first().mood = "refuse";
    const fetcher = setup();
    for (let n = 0; n < 3; n += 1) await read(fetcher, `${site.origin}/ok`);
    expect(first().asked).toHaveLength(1);
    first().mood = "work";
    clock.advance(1_001);
    for (let n = 0; n < 3; n += 1) await read(fetcher, `${site.origin}/ok`);
    expect(first().asked).toHaveLength(2);
  });

  it("fails by the proxies' fault when none of them works, and is worth another try", async () => {
    for (const proxy of proxies) proxy.mood = "drop";
    const error = await failure(read(setup(), `${site.origin}/ok`));
    expect(error).toMatchObject({ reason: "network", retryable: true, phase: "connect" });
    expect(error.cause).toBeInstanceOf(ProxyError);
    expect(proxies.map(({ asked }) => asked.length)).toEqual([1, 1]);
  });

  it("does not blame a proxy for a host that it cannot reach", async () => {
    first().mood = "unreachable";
    const fetcher = setup();
    const error = await failure(read(fetcher, `${site.origin}/ok`, [first()]));
    expect(error).toMatchObject({ reason: "network", phase: "connect" });
    expect(error.message).toContain("the proxy could not connect to it");
    first().mood = "work";
    expect(await read(fetcher, `${site.origin}/ok`)).toContain("As it should be.");
    expect(first().asked).toHaveLength(2);
  });

  it("speaks TLS and HTTP/2 with the host inside the tunnel", async () => {
    const authority = await TestAuthority.create();
    const { certFile, keyFile } = await authority.issue("host", ["subjectAltName=DNS:secure.example"]);
    const [cert, key, ca] = await Promise.all(
      [certFile, keyFile, authority.caFile].map((file) => readFile(file)),
    );
    const server: Http2SecureServer = createSecureServer(
      { cert: cert as Buffer, key: key as Buffer, allowHTTP1: true },
      (request, response) => response.end(`HTTP ${request.httpVersion}`),
    );
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const { port } = server.address() as AddressInfo;
    const fetcher = setup({ ca: String(ca) });
    expect(await read(fetcher, `https://secure.example:${port}/`, [first()])).toBe("HTTP 1.1");
    expect(await read(fetcher, `https://secure.example:${port}/`, [first()], true)).toBe("HTTP 2.0");
    expect(first().asked).toEqual([`127.0.0.1:${port}`, `127.0.0.1:${port}`]);
    const wrong = await failure(read(fetcher, `https://other.example:${port}/`, [first()]));
    expect(wrong.message).toContain("its certificate is for another name");
    await fetcher.close();
    await new Promise((done) => server.close(done));
    await authority.dispose();
  });
});

describe("address rules with proxies", () => {
  it.each([
    "http://10.0.0.1/",
    "http://inside.example/",
    "http://[::1]/",
    "http://2852039166/latest",
    "http://[::ffff:10.0.0.1]/",
  ])("hold for the host: %s is not even asked for", async (url) => {
    const error = await failure(read(setup(), url, [first()]));
    expect(error).toMatchObject({ reason: "address", retryable: false });
    expect(error.cause).toBeInstanceOf(AddressRefusedError);
    expect(first().asked).toEqual([]);
  });

  it("hold for the proxy, which may be where the operator says", async () => {
    const refused = await failure(read(setup({ allowedNetworks: [] }), "http://192.0.2.1/", [first()]));
    expect(refused.reason).toBe("address");

    const outside = setup({ allowedNetworks: ["127.0.0.2/32"] });
    const error = await failure(read(outside, `${site.originOn("127.0.0.2")}/ok`, [first()]));
    expect(error).toMatchObject({ reason: "network", retryable: false });
    expect(error.message).toContain("is not a public address");
    expect(first().asked).toEqual([]);

    const inside = setup({ allowedNetworks: ["127.0.0.2/32"], allowedProxies: ["127.0.0.1/32"] });
    expect(await read(inside, `${site.originOn("127.0.0.2")}/ok`, [first()])).toContain("As it should be.");
    // Where a proxy may be, hosts may not.
    expect((await failure(read(inside, `${site.origin}/ok`, [first()]))).reason).toBe("address");
  });

  it("leave names to the proxy only if the operator says so, and addresses never", async () => {
    first().names.set("only-there.invalid", "127.0.0.1");
    const url = `http://only-there.invalid:${site.port}/ok`;
    const unknown = await failure(read(setup(), url, [first()]));
    expect(unknown.message).toContain("the name does not resolve");
    const trusting = setup({ proxyResolves: true });
    expect(await read(trusting, url, [first()])).toContain("As it should be.");
    expect(first().asked).toEqual([`only-there.invalid:${site.port}`]);
    expect((await failure(read(trusting, "http://10.0.0.1/", [first()]))).reason).toBe("address");
  });
});

describe("a rotation of proxies", () => {
  const [a, b, c] = ["a", "b", "c"].map((name) => proxyOf(`http://${name}.example:3128`));
  const all = [a, b, c] as (typeof a & object)[];
  const names = (order: readonly { hostname: string }[]) => order.map(({ hostname }) => hostname[0]).join("");

  it("gives each host all of them in turn", () => {
    const rotation = new ProxyRotation(new ManualClock());
    expect([1, 2, 3, 4].map(() => names(rotation.inOrder(all, "x")))).toEqual(["abc", "bca", "cab", "abc"]);
    expect(names(rotation.inOrder(all, "y"))).toBe("abc");
  });

  it("sets one aside for longer with each failure, and puts it last meanwhile", () => {
    const time = new ManualClock();
    const rotation = new ProxyRotation(time);
    const isWell = () =>
      names(rotation.inOrder(all, "x")).at(-1) !== "b" || names(rotation.inOrder(all, "x")).at(-1) !== "b";
    rotation.failed(all[1] as (typeof all)[number]);
    // Many at once are one failure.
    rotation.failed(all[1] as (typeof all)[number]);
    expect(isWell()).toBe(false);
    time.advance(1_000);
    expect(isWell()).toBe(true);
    rotation.failed(all[1] as (typeof all)[number]);
    time.advance(1_999);
    expect(isWell()).toBe(false);
    time.advance(1);
    expect(isWell()).toBe(true);
    rotation.worked(all[1] as (typeof all)[number]);
    rotation.failed(all[1] as (typeof all)[number]);
    time.advance(1_000);
    expect(isWell()).toBe(true);
  });
});
