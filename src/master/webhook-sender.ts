import { Agent } from "undici";
import { AddressRefusedError } from "../crawl/errors.js";
import { Connector } from "../crawl/fetch/connector.js";
import { NetworkGuard } from "../crawl/fetch/network-guard.js";
import { retryAfterMs } from "../crawl/limits.js";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { DeliveryTarget } from "../store/index.js";
import { webhookSignature } from "./webhook-signature.js";

export type WebhookSenderOptions = {
  readonly userAgent: string;
  /** Networks in CIDR notation that may be posted to although they are not public. */
  readonly allowedNetworks: readonly string[];
  /** Certificates (PEM) of authorities that are trusted besides those of Node. */
  readonly ca?: string | undefined;
  /** For all of a post: connection, request, and answer, in milliseconds. */
  readonly timeoutMs: number;
  readonly maxConnections: number;
};

export type Post = {
  readonly id: string;
  readonly target: DeliveryTarget;
  /** JSON. */
  readonly text: string;
};

/** What came of a post. */
export type Posted =
  | { readonly kind: "taken"; readonly statusCode: number }
  | {
      /**
       * `refused`: this one was not taken. `silent`: nobody was there, or could take anything. `gone`: there will never be
       * anybody.
       */
      readonly kind: "refused" | "silent" | "gone";
      readonly error: string;
      readonly statusCode?: number;
      /** For how long the receiver asks to be left alone. */
      readonly retryAfterMs?: number;
    };

/** As much of an answer's body as is read, so that its connection can be used again. */
const MAX_ANSWER_BYTES = 65_536;
const MAX_HEADER_BYTES = 16_384;
/** Headers that are ours to say. */
const OURS =
  /^(webhook-.*|host|content-(length|type|encoding)|connection|transfer-encoding|te|trailer|upgrade|expect|keep-alive)$/i;
/** Statuses that say of the receiver rather than of what was sent that it cannot be taken now. */
const BUSY = new Set([408, 425, 429]);

/**
 * Posts to receivers, once each: whether and when again is for others to decide. The addresses that may be fetched are
 * the ones that may be posted to; redirects are not followed, since they would lead past whoever wrote the address down.
 */
export class WebhookSender {
  readonly #options: WebhookSenderOptions;
  readonly #clock: Clock;
  readonly #agent: Agent;
  readonly #connector: Connector;

  /** @throws ConfigError when an allowed network is not in CIDR notation */
  constructor(options: WebhookSenderOptions, clock: Clock) {
    this.#options = options;
    this.#clock = clock;
    const { timeoutMs, maxConnections, allowedNetworks, ca } = options;
    this.#connector = new Connector(
      {
        connectTimeoutMs: timeoutMs,
        maxConnections,
        onFull: () => {},
        ...(ca !== undefined && { ca }),
      },
      new NetworkGuard({ allowed: allowedNetworks }),
    );
    this.#agent = new Agent({
      connect: this.#connector.asUndici(false),
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      maxHeaderSize: MAX_HEADER_BYTES,
    });
  }

  async post({ id, target, text }: Post): Promise<Posted> {
    const { timeoutMs, userAgent } = this.#options;
    const signal = AbortSignal.timeout(timeoutMs);
    const timestamp = Math.floor(this.#clock.now() / 1_000);
    try {
      const url = new URL(target.url);
      const { statusCode, headers, body } = await this.#agent.request({
        origin: url.origin,
        path: url.pathname + url.search,
        method: "POST",
        signal,
        body: text,
        headers: {
          ...Object.fromEntries(Object.entries(target.headers ?? {}).filter(([name]) => !OURS.test(name))),
          "content-type": "application/json",
          "user-agent": userAgent,
          "webhook-id": id,
          "webhook-timestamp": String(timestamp),
          ...(target.secret !== undefined && {
            "webhook-signature": webhookSignature(target.secret, id, timestamp, text),
          }),
        },
      });
      // What it says of it is of no use to us; that it goes on for ever must not be either.
      await body.dump({ limit: MAX_ANSWER_BYTES, signal }).catch(() => {});
      return judged(statusCode, headers["retry-after"], this.#clock.now());
    } catch (error) {
      if (error instanceof AddressRefusedError) return { kind: "refused", error: error.message };
      const why = signal.aborted ? `no answer within ${timeoutMs} ms` : messageOf(rootOf(error));
      return { kind: "silent", error: why };
    }
  }

  async close(): Promise<void> {
    this.#connector.close();
    await this.#agent.destroy();
  }
}

function judged(statusCode: number, retryAfter: string | string[] | undefined, now: number): Posted {
  if (statusCode >= 200 && statusCode < 300) return { kind: "taken", statusCode };
  if (statusCode === 410) return { kind: "gone", statusCode, error: "the receiver is gone (410)" };
  const askedMs = typeof retryAfter === "string" ? retryAfterMs(retryAfter, now) : undefined;
  return {
    kind: statusCode >= 500 || BUSY.has(statusCode) ? "silent" : "refused",
    statusCode,
    error:
      statusCode >= 300 && statusCode < 400
        ? `the receiver answered ${statusCode}: redirects are not followed`
        : `the receiver answered ${statusCode}`,
    ...(askedMs !== undefined && askedMs > 0 && { retryAfterMs: askedMs }),
  };
}

function rootOf(error: unknown): unknown {
  if (error instanceof AggregateError && error.errors.length > 0) return error.errors[0];
  return error;
}
