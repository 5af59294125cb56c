import {
  ATTEMPTS,
  FINE,
  type HostileBehaviour,
  httpStatus,
  inTurn,
  PAGE,
  page,
  raw,
  reply,
  status,
} from "./behaviour.js";

const SECOND = 1_000;

function at(msFromNow: number): string {
  return new Date(Date.now() + msFromNow).toUTCString();
}

/** Refuses every time, whatever it asks to wait. */
function storm(name: string, statusCode: number, retryAfter?: () => string): HostileBehaviour {
  return {
    name,
    answer: (visit) => status(statusCode, { "retry-after": retryAfter?.() })(visit),
    ends: httpStatus(statusCode, ATTEMPTS),
  };
}

/** Statuses that say no: for good, for now, and for a while. */
export const STATUSES: readonly HostileBehaviour[] = [
  ...[400, 401, 402, 403, 404, 405, 406, 410, 414, 418, 421, 431, 451].map(
    (statusCode): HostileBehaviour => ({
      name: `always ${statusCode}`,
      answer: status(statusCode, statusCode === 401 ? { "www-authenticate": 'Basic realm="x"' } : {}),
      ends: httpStatus(statusCode),
    }),
  ),
  ...[408, 425, 500, 501, 502, 503, 504, 507, 511].map((statusCode) =>
    storm(`always ${statusCode}`, statusCode),
  ),
  {
    name: "404 with a body without length",
    answer: ({ socket }) => {
      socket.write("HTTP/1.1 404 No\r\n\r\n");
      socket.end(PAGE);
    },
    ends: httpStatus(404),
  },
  storm("429 and nothing more", 429),
  storm("429 for a second", 429, () => "1"),
  storm("429 until a date", 429, () => at(SECOND)),
  storm("429 until a date that is past", 429, () => at(-86_400_000)),
  storm("429 for a year", 429, () => "31536000"),
  storm("429 until the year 9999", 429, () => "Fri, 31 Dec 9999 23:59:59 GMT"),
  storm("429 for a number of seconds beyond counting", 429, () => "9".repeat(100)),
  storm("429 for less than nothing", 429, () => "-5"),
  storm("429 for a while that is no number", 429, () => "soon"),
  storm("503 for a year", 503, () => "31536000"),
  {
    name: "503 once",
    answer: inTurn(status(503, { "retry-after": "0" }), page(PAGE)),
    ends: { ...FINE, attempts: 2 },
  },
  {
    name: "429 twice",
    answer: inTurn(status(429, { "retry-after": "1" }), status(429), page(PAGE)),
    ends: { ...FINE, attempts: 3 },
  },
  {
    name: "429 after a long silence",
    answer: ({ socket }) => {
      const timer = setTimeout(() => reply(socket, "no", {}, 429), 500);
      socket.on("close", () => clearTimeout(timer));
    },
    ends: httpStatus(429, ATTEMPTS),
  },
  { name: "500 and then 404", answer: inTurn(status(500), status(404)), ends: httpStatus(404, 2) },
  {
    name: "204 with a body",
    answer: raw(`HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello`),
    ends: { state: "done", statusCode: 204, attempts: 1 },
  },
  {
    name: "204 without a body",
    answer: raw("HTTP/1.1 204 No Content\r\n\r\n"),
    ends: { state: "done", statusCode: 204, attempts: 1, title: "" },
  },
  {
    name: "205 with a body",
    answer: ({ socket }) => reply(socket, PAGE, {}, 205),
    ends: { state: "done", statusCode: 205, attempts: 1 },
  },
  {
    name: "206 unasked",
    answer: ({ socket }) => reply(socket, PAGE, { "content-range": "bytes 0-9/100" }, 206),
    ends: { state: "done", statusCode: 206, attempts: 1 },
  },
  {
    name: "299",
    answer: ({ socket }) => reply(socket, PAGE, {}, 299),
    ends: { state: "done", statusCode: 299, attempts: 1, title: "Fine" },
  },
];
