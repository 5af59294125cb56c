import { request } from "node:http";
import type { Socket } from "node:net";
import type { buildConnector } from "undici";
import { messageOf } from "../../lib/errors.js";
import { AddressRefusedError, ConnectionsBusyError, ProxyError } from "../errors.js";
import type { Connector, ConnectTarget } from "./connector.js";
import type { NetworkGuard } from "./network-guard.js";
import type { HttpProxy, ProxyRotation } from "./proxies.js";

export type TunnelOptions = {
  readonly connector: Connector;
  /** Judges the addresses of the hosts that are fetched. */
  readonly guard: NetworkGuard;
  /** Judges the proxies' own addresses. */
  readonly proxyGuard: NetworkGuard;
  /** For the proxy's answer, in milliseconds. */
  readonly connectTimeoutMs: number;
  /** The proxy resolves names, and nobody here judges what they come to. */
  readonly proxyResolves: boolean;
  /** Told which proxies work and which do not. */
  readonly rotation: ProxyRotation;
};

/** With these a proxy says that the host is at fault: it cannot be reached, or does not answer. */
const HOSTS_FAULT = new Set([502, 503, 504]);
/** Bytes of the headers with which a proxy answers. */
const MAX_HEADER_BYTES = 16_384;

/**
 * Connections to hosts through a proxy, by CONNECT (RFC 9110, 9.3.6), for http and https alike.
 *
 * The host's name is resolved and judged here, and the proxy is asked for the very address that was judged: what
 * it might make of the name would be out of our sight. Only where the operator says that proxies resolve does
 * the name go to the proxy as it is; addresses in URLs are judged even then.
 */
export class Tunnels {
  readonly #options: TunnelOptions;

  constructor(options: TunnelOptions) {
    this.#options = options;
  }

  /** In the form in which undici's pools take it. */
  asUndici(proxy: HttpProxy, http2: boolean): buildConnector.connector {
    const { rotation } = this.#options;
    return (target, callback) => {
      this.#connect(proxy, target, http2).then(
        (socket) => {
          rotation.worked(proxy);
          callback(null, socket);
        },
        (error: Error) => {
          if (error instanceof ProxyError) rotation.failed(proxy);
          callback(error, null);
        },
      );
    };
  }

  async #connect(proxy: HttpProxy, target: ConnectTarget, http2: boolean): Promise<Socket> {
    const { connector, proxyGuard } = this.#options;
    const authority = await this.#authorityOf(target);
    let socket: Socket;
    try {
      const { hostname, port, protocol } = proxy;
      const host = `${hostname}:${port}`;
      socket = await connector.connect({ hostname, port, protocol, host }, { guard: proxyGuard });
    } catch (error) {
      // The operator's rules about proxies, and our own bound, are no fault of this one.
      if (error instanceof ConnectionsBusyError) throw error;
      const what =
        error instanceof AddressRefusedError ? error.message : `no connection: ${messageOf(error)}`;
      throw new ProxyError(proxy.label, what, { cause: error });
    }
    try {
      await this.#ask(proxy, socket, authority);
      if (target.protocol !== "https:") return socket;
      return await connector.secure(target, socket, http2);
    } catch (error) {
      socket.on("error", () => {}).destroy();
      throw error;
    }
  }

  /** What the proxy is asked to connect to. @throws AddressRefusedError */
  async #authorityOf({ hostname, port, protocol }: ConnectTarget): Promise<string> {
    const { guard, proxyResolves } = this.#options;
    const atPort = port === "" ? (protocol === "https:" ? "443" : "80") : port;
    guard.check(hostname);
    if (proxyResolves) return `${hostname.includes(":") ? `[${hostname}]` : hostname}:${atPort}`;
    const [first] = await guard.resolve(hostname);
    return first?.family === 6 ? `[${first.address}]:${atPort}` : `${first?.address}:${atPort}`;
  }

  /** @throws ProxyError, or an Error with a code when the host is at fault */
  #ask(proxy: HttpProxy, socket: Socket, authority: string): Promise<void> {
    const { connectTimeoutMs } = this.#options;
    return new Promise((resolve, reject) => {
      const headers = {
        host: authority,
        ...(proxy.authorization !== undefined && { "proxy-authorization": proxy.authorization }),
      };
      const asking = request({
        method: "CONNECT",
        path: authority,
        headers,
        setHost: false,
        maxHeaderSize: MAX_HEADER_BYTES,
        createConnection: () => socket,
      });
      const fail = (error: Error) => {
        clearTimeout(timer);
        reject(error);
        asking.destroy();
      };
      const timer = setTimeout(
        () => fail(new ProxyError(proxy.label, `no answer to CONNECT within ${connectTimeoutMs} ms`)),
        connectTimeoutMs,
      );
      asking.once("connect", ({ statusCode = 0 }, _socket, head) => {
        if (statusCode < 200 || statusCode > 299) {
          fail(refusalOf(proxy, authority, statusCode));
          return;
        }
        clearTimeout(timer);
        if (head.length > 0) socket.unshift(head);
        resolve();
      });
      // A proxy that answers with something else than the end of the headers is none.
      asking.once("response", ({ statusCode = 0 }) => fail(refusalOf(proxy, authority, statusCode)));
      asking.on("error", (error) => {
        fail(new ProxyError(proxy.label, `CONNECT failed: ${messageOf(error)}`, { cause: error }));
      });
      asking.end();
    });
  }
}

function refusalOf(proxy: HttpProxy, authority: string, statusCode: number): Error {
  if (!HOSTS_FAULT.has(statusCode)) {
    return new ProxyError(proxy.label, `answered CONNECT with status ${statusCode}`);
  }
  const message = `proxy ${proxy.label} could not connect to ${authority}: status ${statusCode}`;
  return Object.assign(new Error(message), { code: "PROXY_HOST_UNREACHABLE" });
}
