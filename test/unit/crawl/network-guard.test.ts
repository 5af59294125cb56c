import { describe, expect, it } from "vitest";
import { AddressRefusedError } from "../../../src/crawl/errors.js";
import { NetworkGuard } from "../../../src/crawl/fetch/network-guard.js";
import { ConfigError } from "../../../src/lib/errors.js";

describe("a network guard", () => {
  it.each([
    // Unspecified, loopback, private (RFC 1918), carrier-grade NAT (RFC 6598), link-local (RFC 3927).
    ...["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.254", "10.0.0.1", "10.255.255.255", "172.16.0.1"],
    ...["172.31.255.255", "192.168.0.1", "192.168.255.255", "100.64.0.1", "100.127.255.254", "169.254.0.1"],
    // Metadata services of clouds.
    ...[
      "169.254.169.254",
      "169.254.170.2",
      "100.100.100.200",
      "192.0.0.192",
      "168.63.129.16",
      "fd00:ec2::254",
    ],
    // Reserved, documentation, benchmarks, multicast, broadcast (RFC 6890).
    ...[
      "192.0.0.1",
      "192.0.2.1",
      "192.88.99.1",
      "198.18.0.1",
      "198.19.255.255",
      "198.51.100.1",
      "203.0.113.1",
    ],
    ...["224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"],
    // IPv6: unspecified, loopback, link-local, unique local, site-local, multicast, discard, documentation.
    ...[
      "::",
      "::1",
      "fe80::1",
      "fe80::1%eth0",
      "febf::1",
      "fc00::1",
      "fdff::1",
      "fec0::1",
      "ff02::1",
      "100::1",
    ],
    ...["2001:db8::1", "[::1]"],
    // IPv6 with an IPv4 address inside: mapped, compatible, translated, NAT64, 6to4, Teredo.
    ...[
      "::ffff:127.0.0.1",
      "::ffff:7f00:1",
      "::ffff:8.8.8.8",
      "::127.0.0.1",
      "::8.8.8.8",
      "::ffff:0:127.0.0.1",
    ],
    ...["64:ff9b::7f00:1", "64:ff9b::8.8.8.8", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001::1"],
    // Not assigned to hosts.
    ...["4000::1", "8000::1", "e000::1", "1::1"],
    // No address at all.
    ...["", "example.com", "1.2.3", "0x7f.1", "127.0.0.1.1", "::g", "1.2.3.4/8"],
  ])("refuses %j", (ip) => {
    expect(new NetworkGuard().refuses(ip)).toBe(true);
  });

  it.each(["8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "192.169.0.1"])(
    "permits %s",
    (ip) => {
      expect(new NetworkGuard().refuses(ip)).toBe(false);
    },
  );

  it.each(["2606:4700:4700::1111", "2a00:1450:4001::1", "[2606:4700::1]"])("permits %s", (ip) => {
    expect(new NetworkGuard().refuses(ip)).toBe(false);
  });

  it("permits what an allowed network holds, and no more", () => {
    const guard = new NetworkGuard({ allowed: ["127.0.0.0/8", " 10.1.2.3 ", "fd00::/8"] });
    expect(["127.9.9.9", "10.1.2.3", "fd12::1", "::ffff:127.0.0.1"].map((ip) => guard.refuses(ip))).toEqual([
      false,
      false,
      false,
      false,
    ]);
    expect(["10.1.2.4", "::1", "fc00::1", "192.168.0.1", "::7f00:1"].every((ip) => guard.refuses(ip))).toBe(
      true,
    );
  });

  it.each([
    "10.0.0.0/33",
    "10.0.0.0/",
    "10.0.0/8",
    "fd00::/129",
    "banana",
    "10.0.0.0/8/8",
    "10.0.0.0/-1",
    "/8",
    "",
  ])("does not take %j for a network, and says where it came from", (text) => {
    const make = () => new NetworkGuard({ allowed: [text] });
    expect(make).toThrow(ConfigError);
    expect(make).toThrow("WARREN_ALLOWED_NETWORKS");
  });
});

describe("the guard's look-up", () => {
  type Answer = { error: Error | null; addresses: unknown };
  const lookUp = (guard: NetworkGuard, all: boolean) =>
    new Promise<Answer>((resolve) => {
      guard.lookup("name.example", { all }, (error, addresses) => resolve({ error, addresses }));
    });
  const resolvingTo = (...ips: string[]) =>
    new NetworkGuard({
      allowed: ["127.0.0.2/32"],
      resolve: (_name, _options, callback) =>
        callback(
          null,
          ips.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
        ),
    });

  it("hands on the permitted addresses of a name", async () => {
    const guard = resolvingTo("10.0.0.1", "8.8.8.8", "::1", "2606:4700::1", "127.0.0.2");
    expect(await lookUp(guard, true)).toEqual({
      error: null,
      addresses: [
        { address: "8.8.8.8", family: 4 },
        { address: "2606:4700::1", family: 6 },
        { address: "127.0.0.2", family: 4 },
      ],
    });
    expect((await lookUp(guard, false)).addresses).toBe("8.8.8.8");
  });

  it("fails when none is permitted, naming them", async () => {
    const { error } = await lookUp(resolvingTo("10.0.0.1", "fe80::1"), true);
    expect(error).toBeInstanceOf(AddressRefusedError);
    expect(error?.message).toContain("name.example (10.0.0.1, fe80::1)");
  });

  it("passes on that a name does not resolve", async () => {
    const failure = new Error("ENOTFOUND");
    const guard = new NetworkGuard({ resolve: (_name, _options, callback) => callback(failure, "", 0) });
    expect((await lookUp(guard, true)).error).toBe(failure);
  });
});
