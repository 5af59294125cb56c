import { type LookupAddress, lookup as resolveName } from "node:dns";
import { isIP, type LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";
import { ConfigError } from "../../lib/errors.js";
import { AddressRefusedError } from "../errors.js";

export type NetworkGuardOptions = {
  /** Networks in CIDR notation that may be fetched although they are not public. @default none */
  readonly allowed?: readonly string[];
  /** Where they were set, for the error that says they are wrong. @default "WARREN_ALLOWED_NETWORKS" */
  readonly setting?: string;
  /** How names are resolved. @default the system's resolver */
  readonly resolve?: LookupFunction;
};

type Address = ReturnType<typeof ipaddr.parse>;
type Network = ReturnType<typeof ipaddr.parseCIDR>;

/** Public by its number, but answered inside Azure only, by the platform's own services. */
const AZURE_PLATFORM = ipaddr.parse("168.63.129.16").toString();

/** IPv6 addresses that the Internet routes to hosts (RFC 4291, 2.4, as assigned by IANA). */
const GLOBAL_UNICAST = ipaddr.parseCIDR("2000::/3");

/**
 * Keeps fetches out of networks that are not the public Internet's: private, loopback, link-local (cloud
 * metadata among them), carrier-grade NAT, multicast, reserved, unspecified, and IPv6 forms that carry an
 * IPv4 address (mapped, compatible, NAT64, 6to4, Teredo), unless an allowed network holds the address.
 *
 * It is asked with the address that a connection is about to be made to, after the name was resolved, so
 * that neither a name that points inside, nor one that changes its mind between check and use, nor a
 * redirect, nor an odd spelling of an address gets past it.
 */
export class NetworkGuard {
  readonly #allowed: readonly Network[];
  readonly #resolve: LookupFunction;

  /** @throws ConfigError when an allowed network is not in CIDR notation */
  constructor(options: NetworkGuardOptions = {}) {
    const { allowed = [], setting = "WARREN_ALLOWED_NETWORKS" } = options;
    this.#allowed = allowed.map((text) => parseNetwork(text, setting));
    this.#resolve = options.resolve ?? resolveName;
  }

  /** Whether no connection may be made to this address. What is no IP address is refused. */
  refuses(ip: string): boolean {
    const bare = ip.startsWith("[") && ip.endsWith("]") ? ip.slice(1, -1) : ip;
    if (isIP(bare) === 0) return true;
    const address = ipaddr.parse(bare);
    if (this.#allows(address)) return false;
    if (address instanceof ipaddr.IPv6) {
      // A mapped address is another spelling of an IPv4 address, and connects to it.
      if (address.isIPv4MappedAddress() && this.#allows(address.toIPv4Address())) return false;
      return address.range() !== "unicast" || !address.match(GLOBAL_UNICAST);
    }
    return address.range() !== "unicast" || address.toString() === AZURE_PLATFORM;
  }

  /** @throws AddressRefusedError when the host is an IP address to which no connection may be made */
  check(hostname: string): void {
    const bare = hostname.startsWith("[") && hostname.endsWith("]") ? hostname.slice(1, -1) : hostname;
    if (isIP(bare) !== 0 && this.refuses(bare)) throw new AddressRefusedError(hostname, [bare]);
  }

  /**
   * The addresses of a host, name or address, that may be connected to: at least one.
   * @throws AddressRefusedError when there are none, or what the resolver reports
   */
  async resolve(hostname: string): Promise<readonly LookupAddress[]> {
    this.check(hostname);
    const family = isIP(hostname);
    if (family !== 0) return [{ address: hostname, family }];
    return new Promise((resolve, reject) => {
      this.lookup(hostname, { all: true }, (error, addresses) => {
        if (error === null) resolve(addresses as LookupAddress[]);
        else reject(error);
      });
    });
  }

  /**
   * Resolves a name for `net.connect` to those of its addresses that may be connected to; fails with an
   * AddressRefusedError when there are none. Not called by Node for a host that is an IP address already.
   */
  readonly lookup: LookupFunction = (hostname, options, callback) => {
    this.#resolve(hostname, { ...options, all: true }, (error, answer) => {
      if (error !== null) {
        callback(error, "", 0);
        return;
      }
      const addresses = typeof answer === "string" ? [{ address: answer, family: isIP(answer) }] : answer;
      const permitted = addresses.filter(({ address }) => !this.refuses(address));
      const first = permitted[0];
      if (first === undefined) {
        const refused = addresses.map(({ address }) => address);
        callback(new AddressRefusedError(hostname, refused), "", 0);
      } else if (options.all === true) {
        callback(null, permitted);
      } else {
        callback(null, first.address, first.family);
      }
    });
  };

  #allows(address: Address): boolean {
    return this.#allowed.some(
      ([network, bits]) => network.kind() === address.kind() && address.match(network, bits),
    );
  }
}

function parseNetwork(text: string, setting: string): Network {
  const [address, bits, ...rest] = text.trim().split("/");
  if (address !== undefined && isIP(address) !== 0 && rest.length === 0) {
    const most = isIP(address) === 4 ? 32 : 128;
    if (bits === undefined) return [ipaddr.parse(address), most];
    if (/^\d{1,3}$/.test(bits) && Number(bits) <= most) return [ipaddr.parse(address), Number(bits)];
  }
  throw new ConfigError(
    `${setting}: "${text}" is not a network in CIDR notation, such as 10.0.0.0/8 or fd00::/8`,
  );
}
