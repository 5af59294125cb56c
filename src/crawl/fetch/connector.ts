import type { LookupAddress } from "node:dns";
import { isIP, type LookupFunction, type Socket } from "node:net";
import { rootCertificates } from "node:tls";
import { buildConnector } from "undici";
import { Fifo } from "../dispatch/fifo.js";
import { ConnectionsBusyError } from "../errors.js";
import type { NetworkGuard } from "./network-guard.js";

export type ConnectorOptions = {
  /** For TCP and TLS of one connection together, and for waiting until one may be made, in milliseconds. */
  readonly connectTimeoutMs: number;
  /** Connections open at once, idle ones included. */
  readonly maxConnections: number;
  /** Certificates (PEM) of authorities that are trusted besides those of Node. */
  readonly ca?: string;
  /** Told when a connection must wait for another to close, so that idle ones can be closed. */
  readonly onFull: () => void;
};

/** What undici hands to a connector, and what we hand on. */
export type ConnectTarget = Parameters<buildConnector.connector>[0];

/** A connection that may not be made yet. Settled once: with room for it, or with why there is none. */
type Waiting = { readonly settle: (error?: Error) => void; isOver: boolean };

/**
 * Makes connections, never more at once than may be, and to permitted addresses only: a name is resolved and
 * judged first, and then connected to at the very addresses that were judged.
 */
export class Connector {
  readonly #options: ConnectorOptions;
  readonly #guard: NetworkGuard;
  readonly #connects = new Map<boolean, buildConnector.connector>();
  readonly #waiting = new Fifo<Waiting>();
  #open = 0;
  /** What the connection being made right now is to resolve to. */
  #judged: { readonly hostname: string; readonly addresses: readonly LookupAddress[] } | undefined;

  constructor(options: ConnectorOptions, guard: NetworkGuard) {
    this.#options = options;
    this.#guard = guard;
  }

  /** How many connections are open, or being made. */
  get open(): number {
    return this.#open;
  }

  /** Whether somebody waits for a connection to close. */
  get isAwaited(): boolean {
    return this.#waiting.size > 0;
  }

  /** In the form in which undici's pools take it. */
  asUndici(http2: boolean): buildConnector.connector {
    return (target, callback) => {
      this.connect(target, { http2 }).then(
        (socket) => callback(null, socket),
        (error: Error) => callback(error, null),
      );
    };
  }

  /**
   * @throws AddressRefusedError, DnsTimeoutError, ConnectionsBusyError, or what the resolver, TCP or TLS
   * report
   */
  async connect(
    target: ConnectTarget,
    { http2 = false, guard = this.#guard }: { readonly http2?: boolean; readonly guard?: NetworkGuard } = {},
  ): Promise<Socket> {
    const addresses = await guard.resolve(target.hostname);
    await this.#room();
    try {
      const socket = await this.#connectTo(target, addresses, http2);
      socket.once("close", () => this.#released());
      return socket;
    } catch (error) {
      this.#released();
      throw error;
    }
  }

  /** TLS on a connection that was made before, a tunnel through a proxy. */
  secure(target: ConnectTarget, socket: Socket, http2: boolean): Promise<Socket> {
    return new Promise((resolve, reject) => {
      this.#undiciConnect(http2)({ ...target, httpSocket: socket }, (error, secured) =>
        error === null ? resolve(secured) : reject(error),
      );
    });
  }

  /** Those who wait for room get none any more. */
  close(): void {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      if (!next.isOver) next.settle(new Error("the fetcher is closed"));
    }
  }

  #connectTo(target: ConnectTarget, addresses: readonly LookupAddress[], http2: boolean): Promise<Socket> {
    return new Promise((resolve, reject) => {
      // Node asks `lookup` before `connect` returns: no other connection can come between.
      this.#judged = { hostname: target.hostname, addresses };
      try {
        this.#undiciConnect(http2)(target, (error, socket) =>
          error === null ? resolve(socket) : reject(error),
        );
      } finally {
        this.#judged = undefined;
      }
    });
  }

  #undiciConnect(http2: boolean): buildConnector.connector {
    const known = this.#connects.get(http2);
    if (known !== undefined) return known;
    const { connectTimeoutMs, ca } = this.#options;
    const made = buildConnector({
      timeout: connectTimeoutMs,
      allowH2: http2,
      lookup: this.#lookup,
      ...(ca !== undefined && { ca: [...rootCertificates, ca] }),
      // undici's types want the options of a whole connection here.
    } as buildConnector.BuildOptions);
    this.#connects.set(http2, made);
    return made;
  }

  readonly #lookup: LookupFunction = (hostname, options, callback) => {
    const judged = this.#judged;
    // Were Node to ask later one day, the name is resolved and judged again: slower, and no less safe.
    if (judged?.hostname !== hostname) this.#guard.lookup(hostname, options, callback);
    else process.nextTick(giveAddresses, judged.addresses, options.all === true, callback);
  };

  /** Resolves when one more connection may be made; it is counted from then on. */
  #room(): Promise<void> | undefined {
    const { maxConnections, connectTimeoutMs, onFull } = this.#options;
    if (this.#open < maxConnections) {
      this.#open += 1;
      return undefined;
    }
    const waited = new Promise<void>((resolve, reject) => {
      const waiting: Waiting = {
        isOver: false,
        settle: (error) => {
          waiting.isOver = true;
          clearTimeout(timer);
          if (error === undefined) resolve();
          else reject(error);
        },
      };
      const timer = setTimeout(() => {
        waiting.settle(new ConnectionsBusyError(maxConnections, connectTimeoutMs));
      }, connectTimeoutMs);
      this.#waiting.push(waiting);
    });
    onFull();
    return waited;
  }

  /** A connection is gone: whoever has waited longest takes its place. */
  #released(): void {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      if (next.isOver) continue;
      next.settle();
      return;
    }
    this.#open -= 1;
  }
}

function giveAddresses(
  addresses: readonly LookupAddress[],
  wantsAll: boolean,
  callback: Parameters<LookupFunction>[2],
): void {
  const [first] = addresses;
  if (wantsAll) callback(null, [...addresses]);
  else callback(null, first?.address ?? "", first?.family ?? isIP(first?.address ?? ""));
}
