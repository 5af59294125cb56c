import type { LookupAddress } from "node:dns";
import type { LookupFunction } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { AddressRefusedError, FetchError } from "../../../src/crawl/errors.js";
import { Fetcher, type FetcherOptions } from "../../../src/crawl/fetch/fetcher.js";
import { proxyOf } from "../../../src/crawl/fetch/proxies.js";
import { ProxyServer } from "../../support/proxy-server.js";
import { crawlStandalone } from "../../support/standalone-under-test.js";
import { startWildSite, type WildSite } from "../../support/wild-site.js";

let site: WildSite;
let proxy: ProxyServer;
const fetchers: Fetcher[] = [];
beforeAll(async () => {
  site = await startWildSite({ alsoOn: ["127.0.0.2"] });
  proxy = await ProxyServer.start("127.0.0.3");
});
afterEach(async () => {
  for (const fetcher of fetchers.splice(0)) await fetcher.close();
});
afterAll(async () => {
  await site.close();
  await proxy.close();
});

const at = (...addresses: string[]): LookupAddress[] =>
  addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));

/** What an attacker's name server answers. */
const ANSWERS: Readonly<Record<string, LookupAddress[]>> = {
  "loopback.example": at("127.0.0.1"),
  "private.example": at("10.1.2.3", "172.16.0.1", "192.168.1.1"),
  "metadata.example": at("169.254.169.254"),
  "azure.example": at("168.63.129.16"),
  "alibaba.example": at("100.100.100.200"),
  "any.example": at("0.0.0.0"),
  "six.example": at("::1"),
  "mapped.example": at("::ffff:127.0.0.1"),
  "mapped-hex.example": at("::ffff:7f00:1"),
  "compatible.example": at("::127.0.0.1"),
  "nat64.example": at("64:ff9b::7f00:1"),
  "local-nat64.example": at("64:ff9b:1::7f00:1"),
  "six-to-four.example": at("2002:7f00:1::1"),
  "teredo.example": at("2001:0:7f00:1::1"),
  "link-local.example": at("fe80::1"),
  "zone.example": at("fe80::1%lo"),
  "loopback-zone.example": at("::1%lo"),
  "unique-local.example": at("fd00::1"),
  "ec2-six.example": at("fd00:ec2::254"),
  "multicast.example": at("224.0.0.1", "ff02::1"),
  "broadcast.example": at("255.255.255.255"),
  "both.example": at("127.0.0.1", "::1"),
  "nonsense.example": at("not-an-address"),
  "empty.example": [],
  localhost: at("127.0.0.1", "::1"),
  "localhost.": at("127.0.0.1"),
  "a.localhost": at("127.0.0.1"),
  ip6: at("::1"),
  intranet: at("10.0.0.5"),
};
const resolve: LookupFunction = (name, _options, callback) => {
  const answer = ANSWERS[name];
  if (answer === undefined) callback(Object.assign(new Error(name), { code: "ENOTFOUND" }), "", 0);
  else callback(null, answer);
};

function setup(options: Partial<FetcherOptions> = {}, how: LookupFunction = resolve): Fetcher {
  const fetcher = new Fetcher({ userAgent: "Warren/0.1", ...options }, { resolve: how });
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

/** Hosts as an attacker may spell them. All of them are, or lead to, something inside. */
const HOSTS = [
  // IPv4 in every spelling that the URL standard knows, and some that need decoding first.
  ...["127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "017700000001"],
  ...["0177.0.0.1", "0177.0x0.0.1", "127.0.0.1.", "127.255.255.254", "0", "0.0.0.0", "0x0", "00000177.1"],
  ...["%31%32%37.0.0.1", "127%2e0%2e0%2e1", "１２７.０.０.１", "127。0。0。1", "⑫7.0.0.1", "①②⑦.0.0.1"],
  ...["10.0.0.1", "167772161", "172.16.0.1", "172.31.255.255", "192.168.0.1", "3232235521", "0xc0a80001"],
  ...[
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.170.2",
    "100.100.100.200",
  ],
  ...[
    "168.63.129.16",
    "100.64.0.1",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
  ],
  // IPv6, and IPv4 inside it.
  ...["[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]"],
  ...[
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::a00:1]",
    "[2002:7f00:1::]",
    "[2002:a00:1::1]",
  ],
  ...["[2001::7f00:1]", "[fe80::1]", "[febf::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[fec0::1]"],
  ...["[100::1]", "[2001:db8::1]", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]"],
  // Names.
  ...Object.keys(ANSWERS),
  ...["LOOPBACK.example", "loopback%2eexample", "ｌoopback.example"],
];

describe("a host inside", () => {
  it(`is a table of at least 60`, () => expect(HOSTS.length).toBeGreaterThanOrEqual(60));

  it.each(HOSTS)("is never connected to: %s", async (host) => {
    const before = site.requests.length;
    for (const scheme of ["http", "https"]) {
      const error = await failure(setup().fetch({ url: `${scheme}://${host}:${site.port}/ok` }));
      expect(error).toMatchObject({ reason: "address", retryable: false });
      expect(error.cause).toBeInstanceOf(AddressRefusedError);
    }
    expect(site.requests).toHaveLength(before);
  });

  it.each(HOSTS)("is not reached through a proxy either: %s", async (host) => {
    const proxies = [proxyOf(proxy.url)];
    const fetcher = setup({ allowedProxies: ["127.0.0.3/32"] });
    const error = await failure(fetcher.fetch({ url: `http://${host}:${site.port}/ok`, proxies }));
    expect(error).toMatchObject({ reason: "address", retryable: false });
    expect(proxy.asked).toEqual([]);
  });

  it.each([
    "http://[fe80::1%25lo]/",
    "http://[::1%lo]/",
    "http://[::ffff:127.1]/",
    "http://127.0.0.1.1/",
    "http://0x100000000/",
  ])("is not even a URL: %s", async (url) => {
    expect(await failure(setup().fetch({ url }))).toMatchObject({ reason: "network", retryable: false });
  });

  it.each([
    "http://user@127.0.0.1",
    "http://example.com@127.0.0.1",
    "http://127.0.0.1\\@example.com",
    "http:127.0.0.1",
  ])("does not hide behind %s", async (start) => {
    const error = await failure(setup().fetch({ url: `${start}:${site.port}/ok` }));
    expect(["address", "network"]).toContain(error.reason);
    expect(error.retryable).toBe(false);
  });
});

describe("a name that changes its mind", () => {
  /** Answers in turn; the last for ever. */
  const turns = (...answers: LookupAddress[][]): LookupFunction => {
    let turn = 0;
    return (_name, _options, callback) => {
      callback(null, answers[Math.min(turn, answers.length - 1)] ?? []);
      turn += 1;
    };
  };
  const OUTSIDE = { allowedNetworks: ["127.0.0.2/32"] };
  const url = (path: string) => `http://rebinding.example:${site.port}${path}`;

  it("between check and connection has only what was checked connected to", async () => {
    // Were the name resolved once for the check and again for the connection, this would reach 127.0.0.1.
    const fetcher = setup({ ...OUTSIDE, dnsCacheMs: 0 }, turns(at("127.0.0.2"), at("127.0.0.1")));
    const fetched = await fetcher.fetch({ url: url("/ok?first") });
    await fetched.body.read(1_000);
    expect(site.requests.at(-1)?.path).toBe("/ok?first");
    const again = setup({ ...OUTSIDE, dnsCacheMs: 0 }, turns(at("127.0.0.1"), at("127.0.0.2")));
    expect((await failure(again.fetch({ url: url("/ok") }))).reason).toBe("address");
  });

  it("to an address inside is refused at its next connection, from the cache or not", async () => {
    for (const dnsCacheMs of [0, 60_000]) {
      const fetcher = setup({ ...OUTSIDE, dnsCacheMs }, turns(at("127.0.0.2"), at("127.0.0.1")));
      expect((await failure(fetcher.fetch({ url: url("/no-answer") }))).reason).toBe("network");
      const second = await failure(fetcher.fetch({ url: url("/no-answer") }));
      expect(second.reason).toBe(dnsCacheMs === 0 ? "address" : "network");
    }
  });

  it("or answers with both is connected to outside only", async () => {
    const fetcher = setup(OUTSIDE, turns(at("127.0.0.1", "::1", "127.0.0.2", "10.0.0.1")));
    for (let n = 0; n < 4; n += 1) {
      const fetched = await fetcher.fetch({ url: url(`/ok?mixed${n}`) });
      await fetched.body.read(1_000);
    }
    const mixed = await failure(setup({}, turns(at("127.0.0.1", "10.0.0.1"))).fetch({ url: url("/ok") }));
    expect(mixed.message).toContain("127.0.0.1, 10.0.0.1");
  });
});

describe("a redirect to a host inside", () => {
  it.each([
    ["http://127.0.0.1", true],
    ["http://0x7f.1", true],
    ["http://[::ffff:127.0.0.1]", true],
    ["//2130706433", true],
    ["http://169.254.169.254/latest/meta-data", false],
    ["http://loopback.example", true],
  ])("ends as address, after any number of hops: %s", async (target, hasPort) => {
    const location = hasPort ? `${target}:${site.port}/secret` : target;
    const port = site.port;
    for (const [path, to] of [
      ["/a", "/b"],
      ["/b", `http://outside.example:${port}/c`],
      ["/c", location],
    ] as const) {
      site.page(path, { body: "", status: 302, headers: { location: to } });
    }
    const { counts } = await crawlStandalone(
      { seeds: [`http://127.0.0.2:${port}/a`], scope: "any" },
      {
        fetcher: { allowedNetworks: ["127.0.0.2/32"] },
        resolve: (name, options, callback) =>
          name === "outside.example" ? callback(null, at("127.0.0.2")) : resolve(name, options, callback),
      },
    );
    expect(counts).toMatchObject({ done: 0, failed: 0, skipped: 4 });
    expect(site.requestsOf("/secret")).toEqual([]);
    expect(site.requestsOf("/c").length).toBeGreaterThan(0);
  });
});
