import { messageOf } from "../../lib/errors.js";
import {
  AddressRefusedError,
  ConnectionsBusyError,
  DnsTimeoutError,
  FetchError,
  type FetchFailure,
  type FetchPhase,
  ProxyError,
} from "../errors.js";

/** What a code of undici, Node, OpenSSL or the system comes to, in plain words. */
type Meaning = {
  readonly words: string;
  /** @default "network" */
  readonly reason?: FetchFailure;
  /** @default how far the fetch had come */
  readonly phase?: FetchPhase;
  /** The same request would meet it again. */
  readonly isPermanent?: true;
};

const NOT_HTTP: Meaning = { words: "its answer is not HTTP" };
const UNTRUSTED = "its certificate was signed by nobody who is trusted";

const MEANINGS: Readonly<Record<string, Meaning>> = {
  ENOTFOUND: { words: "the name does not resolve", phase: "dns" },
  ENODATA: { words: "the name has no address", phase: "dns" },
  EAI_AGAIN: { words: "the name server gave no answer for now", phase: "dns" },
  EAI_FAIL: { words: "the name server failed", phase: "dns" },
  ESERVFAIL: { words: "the name server failed", phase: "dns" },

  ECONNREFUSED: { words: "connection refused", phase: "connect" },
  EHOSTUNREACH: { words: "no route to the host", phase: "connect" },
  ENETUNREACH: { words: "no route to its network", phase: "connect" },
  EHOSTDOWN: { words: "the host is down", phase: "connect" },
  EADDRNOTAVAIL: { words: "no address here to connect from", phase: "connect" },
  EMFILE: { words: "too many files are open here", phase: "connect" },
  ETIMEDOUT: { words: "no connection in time", reason: "timeout", phase: "connect" },
  UND_ERR_CONNECT_TIMEOUT: { words: "no connection in time", reason: "timeout", phase: "connect" },
  PROXY_HOST_UNREACHABLE: { words: "the proxy could not connect to it", phase: "connect" },

  CERT_HAS_EXPIRED: { words: "its certificate has expired", phase: "connect", isPermanent: true },
  CERT_NOT_YET_VALID: { words: "its certificate is not valid yet", phase: "connect", isPermanent: true },
  CERT_REVOKED: { words: "its certificate was revoked", phase: "connect", isPermanent: true },
  DEPTH_ZERO_SELF_SIGNED_CERT: {
    words: "its certificate is self-signed",
    phase: "connect",
    isPermanent: true,
  },
  SELF_SIGNED_CERT_IN_CHAIN: { words: UNTRUSTED, phase: "connect", isPermanent: true },
  UNABLE_TO_GET_ISSUER_CERT: { words: UNTRUSTED, phase: "connect", isPermanent: true },
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: { words: UNTRUSTED, phase: "connect", isPermanent: true },
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: { words: UNTRUSTED, phase: "connect", isPermanent: true },
  ERR_TLS_CERT_ALTNAME_INVALID: {
    words: "its certificate is for another name",
    phase: "connect",
    isPermanent: true,
  },
  HOSTNAME_MISMATCH: { words: "its certificate is for another name", phase: "connect", isPermanent: true },
  EPROTO: { words: "no TLS connection could be agreed on", phase: "connect" },

  ECONNRESET: { words: "the server reset the connection" },
  ECONNABORTED: { words: "the connection was aborted" },
  EPIPE: { words: "the server closed the connection" },
  UND_ERR_SOCKET: { words: "the server closed the connection before its answer was whole" },
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: {
    words: "the body is not as long as its Content-Length says",
    phase: "body",
  },
  UND_ERR_HEADERS_OVERFLOW: { words: "its headers are too large", reason: "too-large", phase: "headers" },
  UND_ERR_HEADERS_TIMEOUT: { words: "no complete headers in time", reason: "timeout", phase: "headers" },
  UND_ERR_BODY_TIMEOUT: { words: "nothing more of the body in time", reason: "timeout", phase: "body" },
  UND_ERR_INVALID_ARG: { words: "the request cannot be sent", isPermanent: true },
  UND_ERR_NOT_SUPPORTED: { words: "the request cannot be sent", isPermanent: true },
};

/** Codes that come in families. */
const FAMILIES: readonly (readonly [RegExp, Meaning])[] = [
  [/^HPE_/, NOT_HTTP],
  [/^ERR_HTTP2_/, { words: "the HTTP/2 connection failed" }],
  [/^(ERR_TLS_CERT|CERT_)/, { words: "its certificate is not valid", phase: "connect", isPermanent: true }],
  [/^ERR_(SSL|TLS|OSSL)_/, { words: "no TLS connection could be agreed on", phase: "connect" }],
];

/** Time limits in force, in milliseconds, for the errors that tell of them. */
export type PhaseLimits = {
  readonly connectTimeoutMs: number;
  readonly headersTimeoutMs: number;
  readonly bodyTimeoutMs: number;
};

/**
 * What undici, Node or the system report of a fetch, in our words.
 * @param at how far the fetch had come
 */
export function failureOf(error: Error, url: string, at: FetchPhase, limits: PhaseLimits): FetchError {
  const cause = innermost(error);
  if (cause instanceof AddressRefusedError) {
    return new FetchError("address", `${url}: ${cause.message}`, { cause, phase: "connect" });
  }
  if (cause instanceof DnsTimeoutError) {
    return new FetchError("timeout", `${url}: ${cause.message}`, { cause, phase: "dns" });
  }
  if (cause instanceof ConnectionsBusyError) {
    return new FetchError("timeout", `${url}: ${cause.message}`, { cause, phase: "connect" });
  }
  if (cause instanceof ProxyError) {
    const retryable = !(cause.cause instanceof AddressRefusedError);
    return new FetchError("network", `${url}: ${cause.message}`, { cause, phase: "connect", retryable });
  }
  const code = codeOf(cause);
  const meaning = meaningOf(code, at);
  const said = messageOf(cause).trim();
  if (meaning === undefined) {
    const message = `${url}: ${said || code || "the connection failed"}`;
    return new FetchError("network", message, { cause: error, phase: at });
  }
  const { words, reason = "network", phase = at, isPermanent = false } = meaning;
  const retryable = (reason === "network" || reason === "timeout") && !isPermanent;
  return new FetchError(reason, `${url}: ${words} (${detailOf(code, said, limits)})`, {
    cause: error,
    retryable,
    phase,
  });
}

function meaningOf(code: string, at: FetchPhase): Meaning | undefined {
  // undici's word for any fault in an answer that had a Content-Length before it.
  if (code === "UND_ERR_RES_CONTENT_LENGTH_MISMATCH" && at !== "body") return NOT_HTTP;
  return MEANINGS[code] ?? FAMILIES.find(([family]) => family.test(code))?.[1];
}

/** The number for a time limit, what the parser says for broken HTTP, else the code, by which it can be looked up. */
function detailOf(code: string, said: string, limits: PhaseLimits): string {
  switch (code) {
    case "UND_ERR_CONNECT_TIMEOUT":
      return `${limits.connectTimeoutMs} ms`;
    case "UND_ERR_HEADERS_TIMEOUT":
      return `${limits.headersTimeoutMs} ms`;
    case "UND_ERR_BODY_TIMEOUT":
      return `${limits.bodyTimeoutMs} ms`;
    default:
      return /^(HPE_|UND_ERR_|ERR_HTTP2_)/.test(code) && said !== "" ? said : code;
  }
}

/** Of the attempts at several addresses of a host, the one that tells most: a refusal, else the first. */
function innermost(error: Error): Error {
  if (!(error instanceof AggregateError)) return error;
  const inner = error.errors.filter((one): one is Error => one instanceof Error);
  return inner.find((one) => one instanceof AddressRefusedError) ?? inner[0] ?? error;
}

function codeOf(error: Error): string {
  return "code" in error && typeof error.code === "string" ? error.code : "";
}
