import type { Socket } from "node:net";

/** One request that reached the hostile site. */
export type Visit = {
  /** Where the answer goes, byte for byte. */
  readonly socket: Socket;
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  /** How often this path was asked for, this time included. */
  readonly count: number;
  /** Scheme, address and port that were asked. */
  readonly origin: string;
  /** Those of another behaviour's host. */
  readonly originOf: (behaviour: string) => string;
};

export type Answer = (visit: Visit) => void;

/** How a URL must end. Members that are left out may be anything. */
export type ExpectedEnd = {
  readonly state: "done" | "failed" | "skipped";
  readonly reason?: string;
  /** `undefined`: no status was had. */
  readonly statusCode?: number | undefined;
  readonly attempts?: number;
  /** What the error says. */
  readonly error?: RegExp;
  /** The title that its item has. */
  readonly title?: string;
  readonly files?: number;
};

export type HostileBehaviour = {
  /** What it is called in the table; its path too, unless that is given. */
  readonly name: string;
  readonly path?: string;
  /** Behaviours that name the same host share it; every other has a host of its own. */
  readonly host?: string;
  /** @default "http" */
  readonly scheme?: "http" | "https";
  /** What listens there. @default "plain" */
  readonly listens?: "plain" | "nothing" | "tls" | "unknown" | "expired" | "wrong-host";
  /** @default "links" */
  readonly spider?: "links" | "pdf";
  /** Called with each connection, instead of reading a request from it. */
  readonly meets?: (socket: Socket) => void;
  /** Answers every path but robots.txt. @default a fine page */
  readonly answer?: Answer;
  /** @default 404 */
  readonly robots?: Answer;
  readonly ends: ExpectedEnd;
  /** It would go on for ever, though it does not end as `timeout`. */
  readonly lasts?: boolean;
  /** Where the end is not what a standard asks for: what it asks, and why it is otherwise here. */
  readonly deviates?: string;
  /** How other URLs of its host must end, by path: those that it leads to. */
  readonly leadsTo?: Readonly<Record<string, ExpectedEnd>>;
};

export const MiB = 1_048_576;
export const PAGE = "<!doctype html><title>Fine</title><p>As it should be.</p>";

// How URLs end.

export const ATTEMPTS = 3;

export const DONE = { state: "done", statusCode: 200, attempts: 1 } as const;
export const FINE = { ...DONE, title: "Fine" } as const;

/** Not to be had, or not whole: tried again, since the next connection may fare better. */
export function network(error: RegExp, statusCode?: number): ExpectedEnd {
  return { state: "failed", reason: "network", attempts: ATTEMPTS, error, statusCode };
}

export function timeout(statusCode?: number): ExpectedEnd {
  return { state: "failed", reason: "timeout", attempts: ATTEMPTS, statusCode };
}

/** Not tried again: it would be as large the next time. */
export function tooLarge(statusCode?: number): ExpectedEnd {
  return { state: "failed", reason: "too-large", attempts: 1, statusCode };
}

export function decode(error: RegExp): ExpectedEnd {
  return { state: "failed", reason: "decode", attempts: 1, error };
}

/** A status that says no. */
export function httpStatus(statusCode: number, attempts = 1): ExpectedEnd {
  return { state: "failed", reason: "http-status", statusCode, attempts };
}

export function skipped(reason: string, rest: Omit<ExpectedEnd, "state" | "reason"> = {}): ExpectedEnd {
  return { state: "skipped", reason, ...rest };
}

// What is answered.

export const HTML = "text/html; charset=utf-8";

export type Headers = Readonly<Record<string, string | number | undefined>>;

/** The head of a response, ready to be sent. */
export function head(statusCode: number, headers: Headers = {}): Buffer {
  const lines = Object.entries(headers)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(`HTTP/1.1 ${statusCode} As told\r\n${lines.join("")}\r\n`, "latin1");
}

/** A response as a well-behaved server sends it. */
export function reply(
  socket: Socket,
  body: string | Buffer = PAGE,
  headers: Headers = {},
  statusCode = 200,
): void {
  const bytes = typeof body === "string" ? Buffer.from(body) : body;
  const all = { "content-type": HTML, "content-length": bytes.length, connection: "close", ...headers };
  socket.write(head(statusCode, all));
  socket.end(bytes);
}

/** Always this page. */
export function page(body: string | Buffer | (() => string | Buffer), headers: Headers = {}): Answer {
  return ({ socket }) => reply(socket, typeof body === "function" ? body() : body, headers);
}

export function status(statusCode: number, headers: Headers = {}, body = "no"): Answer {
  return ({ socket }) => reply(socket, body, headers, statusCode);
}

/** Exactly these bytes, and then the end of the connection. */
export function raw(text: string | Buffer): Answer {
  const bytes = typeof text === "string" ? Buffer.from(text, "latin1") : text;
  return ({ socket }) => socket.end(bytes);
}

/** Exactly these bytes, and then nothing more. */
export function rawAndSilence(text: string): Answer {
  return ({ socket }) => socket.write(text);
}

export function redirect(location: string | ((visit: Visit) => string), statusCode = 302): Answer {
  return (visit) => {
    const target = typeof location === "function" ? location(visit) : location;
    reply(visit.socket, "", { location: target }, statusCode);
  };
}

/** The first answer the first time, and so on; the last one from then on. */
export function inTurn(...answers: readonly [Answer, ...Answer[]]): Answer {
  return (visit) => (answers[Math.min(visit.count, answers.length) - 1] ?? answers[0])(visit);
}

/** By path; whatever has none is a fine page. */
export function byPath(answers: Readonly<Record<string, Answer>>): Answer {
  return (visit) => (answers[visit.path] ?? page(PAGE))(visit);
}

/** As fast as it is taken, until the client goes. */
export function pour(socket: Socket, piece: Buffer): void {
  const go = () => {
    while (!socket.destroyed && socket.writable && socket.write(piece));
  };
  socket.on("drain", go);
  go();
}

/** A piece now and then, until the client goes. */
export function drip(socket: Socket, piece: string | Buffer, everyMs = 100): void {
  const timer = setInterval(() => {
    if (socket.writable) socket.write(piece);
  }, everyMs);
  socket.on("close", () => clearInterval(timer));
}
