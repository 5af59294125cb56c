import { createHash, timingSafeEqual } from "node:crypto";
import { isIP, isIPv4 } from "node:net";
import type { FastifyRequest } from "fastify";
import { ConfigError } from "../../lib/errors.js";
import { type ApiToken, ROLES, type Role } from "../../lib/setting-values.js";
import { RequestError } from "../errors.js";

/** Methods that change nothing. */
const READS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);

/**
 * Who may do what. With tokens, each request must bear one. Without, the server is for this machine alone:
 * it listens on loopback only, and, since any page in a browser here could reach it as well, it answers only
 * to a loopback name (a page cannot then pass for it by DNS rebinding) and takes writes from no other origin.
 */
export class Access {
  readonly #tokens: readonly { readonly role: Role; readonly digest: Buffer }[];

  constructor(tokens: readonly ApiToken[], host: string) {
    if (tokens.length === 0 && !isLoopback(host)) {
      throw new ConfigError(
        `WARREN_HOST: refusing to listen on "${host}" without tokens; set WARREN_API_TOKENS, or listen on 127.0.0.1`,
      );
    }
    this.#tokens = tokens.map(({ role, token }) => ({ role, digest: digestOf(token) }));
  }

  get needsToken(): boolean {
    return this.#tokens.length > 0;
  }

  /** @throws RequestError when the request comes from where it should not, token or no token */
  checkOrigin(request: FastifyRequest): void {
    if (this.needsToken) return;
    const host = request.headers.host ?? "";
    if (!isLoopback(hostNameOf(host))) {
      throw new RequestError(
        "forbidden",
        "without tokens this server answers only to 127.0.0.1, ::1 and localhost as Host",
      );
    }
    if (READS.has(request.method)) return;
    const origin = request.headers.origin;
    const site = request.headers["sec-fetch-site"];
    const isForeign =
      (origin !== undefined && origin !== `http://${host}` && origin !== `https://${host}`) ||
      (origin === undefined && (site === "cross-site" || site === "same-site"));
    if (isForeign) {
      throw new RequestError("forbidden", "without tokens this server takes no writes from other origins");
    }
  }

  /** @throws RequestError `unauthorized` without a known token, `forbidden` when its role does not suffice */
  check(request: FastifyRequest, needed: Role): void {
    if (!this.needsToken) return;
    const given = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? "")?.[1];
    if (given === undefined) throw new RequestError("unauthorized", "send Authorization: Bearer TOKEN");
    const role = this.#roleOf(given);
    if (role === undefined) throw new RequestError("unauthorized", "the token is not known");
    if (ROLES.indexOf(role) < ROLES.indexOf(needed)) {
      throw new RequestError("forbidden", `this needs the role ${needed}; the token is a ${role}'s`);
    }
  }

  /** All tokens are compared, each in constant time, so that the time taken tells nothing. */
  #roleOf(token: string): Role | undefined {
    const digest = digestOf(token);
    let found: Role | undefined;
    for (const known of this.#tokens) if (timingSafeEqual(known.digest, digest)) found = known.role;
    return found;
  }
}

/** The role that a route needs when it names none. */
export function defaultRole(method: string): Role {
  return READS.has(method) ? "viewer" : "operator";
}

function digestOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

function hostNameOf(authority: string): string {
  return authority.replace(/:\d*$/, "");
}

/** Whether a name or address can only mean this machine. Other names are not looked up: DNS may change. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[(.*)\]$/, "$1").toLowerCase();
  if (name === "localhost") return true;
  if (isIPv4(name)) return name.startsWith("127.");
  return isIP(name) === 6 && /^(0{0,4}:)*:?0{0,3}1$/.test(name);
}
