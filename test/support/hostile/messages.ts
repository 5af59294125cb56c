import {
  DONE,
  drip,
  FINE,
  type HostileBehaviour,
  HTML,
  head,
  httpStatus,
  network,
  PAGE,
  page,
  pour,
  raw,
  rawAndSilence,
  tooLarge,
} from "./behaviour.js";

const HEAD = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n";
const CHUNKED = `${HEAD}transfer-encoding: chunked\r\n\r\n`;
const CHUNKED_PAGE = `${PAGE.length.toString(16)}\r\n${PAGE}\r\n`;
const SIZED = `${HEAD}content-length: ${PAGE.length}\r\n`;

/** Responses that are not as HTTP/1.1 has them (RFC 9110, RFC 9112), or strain what it allows. */
export const MESSAGES: readonly HostileBehaviour[] = [
  // Lengths (RFC 9112, 6.3 and 8): a message that is not whole is no message.
  {
    name: "fewer bytes than promised",
    answer: raw(`${HEAD}content-length: 1000\r\n\r\n${PAGE}`),
    ends: network(/./, 200),
  },
  { name: "more bytes than promised", answer: raw(`${SIZED}\r\n${PAGE}and much more`), ends: FINE },
  {
    name: "a second response after the first",
    answer: raw(`${SIZED}\r\n${PAGE}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged`),
    ends: FINE,
  },
  {
    name: "a length below nothing",
    answer: raw(`${HEAD}content-length: -5\r\n\r\n${PAGE}`),
    ends: network(/./),
  },
  {
    name: "a length that is no number",
    answer: raw(`${HEAD}content-length: many\r\n\r\n${PAGE}`),
    ends: network(/./),
  },
  {
    name: "a length beyond counting",
    answer: raw(`${HEAD}content-length: ${"9".repeat(40)}\r\n\r\n${PAGE}`),
    ends: network(/./),
  },
  {
    name: "a length of a terabyte",
    answer: rawAndSilence(`${HEAD}content-length: ${2 ** 40}\r\n\r\n${PAGE}`),
    ends: tooLarge(200),
  },
  {
    name: "two lengths that differ",
    answer: raw(`${SIZED}content-length: 7\r\n\r\n${PAGE}`),
    ends: network(/./),
  },
  {
    name: "two lengths in one line",
    answer: raw(`${HEAD}content-length: 7, 9\r\n\r\n${PAGE}`),
    ends: network(/./),
  },
  { name: "no length until the end", answer: raw(`${HEAD}\r\n${PAGE}`), ends: FINE },
  { name: "an empty page", answer: page(""), ends: { ...DONE, title: "" } },
  {
    name: "a chunk size that is no number",
    answer: raw(`${CHUNKED}nonsense\r\n${PAGE}\r\n`),
    ends: network(/./, 200),
  },
  { name: "a chunk size below nothing", answer: raw(`${CHUNKED}-5\r\n${PAGE}\r\n`), ends: network(/./, 200) },
  {
    name: "a chunk size beyond counting",
    answer: raw(`${CHUNKED}${"f".repeat(17)}\r\n${PAGE}\r\n`),
    ends: network(/./, 200),
  },
  {
    name: "a chunk longer than its size",
    answer: raw(`${CHUNKED}5\r\n${PAGE}\r\n0\r\n\r\n`),
    ends: network(/./, 200),
  },
  { name: "no last chunk", answer: raw(`${CHUNKED}${CHUNKED_PAGE}`), ends: network(/./, 200) },
  // Either the framing that counts is the chunks', or it is an error (RFC 9112, 6.3): undici holds the latter.
  {
    name: "chunks and a length",
    answer: raw(`${HEAD}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n${CHUNKED_PAGE}0\r\n\r\n`),
    ends: network(/./),
  },
  {
    name: "chunks with extensions and trailers",
    answer: raw(`${CHUNKED}${PAGE.length.toString(16)};a=b;c="d"\r\n${PAGE}\r\n0\r\nx-sum: 1\r\n\r\n`),
    ends: FINE,
  },
  {
    name: "a byte a chunk",
    answer: raw(`${CHUNKED}${[...PAGE].map((byte) => `1\r\n${byte}\r\n`).join("")}0\r\n\r\n`),
    ends: FINE,
  },

  // Status lines (RFC 9112, 4; RFC 9110, 15: a status outside 100 to 599 is treated as a 5xx).
  { name: "garbage", answer: raw("\u0000\u0001\u0002 this is not HTTP at all\r\n\r\n"), ends: network(/./) },
  {
    name: "a status that is no number",
    answer: raw("HTTP/1.1 banana fine\r\ncontent-length: 2\r\n\r\nok"),
    ends: network(/./),
  },
  {
    name: "a version of another world",
    answer: raw(`HTTP/7.3 200 OK\r\ncontent-length: 2\r\n\r\nok`),
    ends: network(/./),
  },
  {
    name: "status 999",
    answer: raw("HTTP/1.1 999 Go away\r\ncontent-length: 2\r\n\r\nno"),
    ends: httpStatus(999, 3),
  },
  {
    name: "status 600",
    answer: raw("HTTP/1.1 600 Six\r\ncontent-length: 2\r\n\r\nno"),
    ends: httpStatus(600, 3),
  },
  {
    name: "status 000",
    answer: raw("HTTP/1.1 000 Nothing\r\ncontent-length: 2\r\n\r\nno"),
    ends: { state: "failed", attempts: 3 },
    lasts: true,
  },
  {
    name: "status 42",
    answer: raw("HTTP/1.1 42 Short\r\ncontent-length: 2\r\n\r\nno"),
    ends: { state: "failed", attempts: 3 },
    lasts: true,
  },
  {
    name: "no reason phrase",
    answer: raw(`HTTP/1.1 200\r\ncontent-type: text/html\r\ncontent-length: ${PAGE.length}\r\n\r\n${PAGE}`),
    ends: FINE,
  },
  {
    name: "a reason phrase without end",
    answer: ({ socket }) => {
      socket.write("HTTP/1.1 200 ");
      pour(socket, Buffer.alloc(16_384, "well "));
    },
    ends: { state: "failed" },
    lasts: true,
  },
  { name: "HTTP/1.0", answer: raw(`HTTP/1.0 200 OK\r\ncontent-type: text/html\r\n\r\n${PAGE}`), ends: FINE },
  {
    name: "bare line feeds",
    answer: raw(`HTTP/1.1 200 OK\ncontent-type: text/html\ncontent-length: ${PAGE.length}\n\n${PAGE}`),
    ends: { state: "failed", reason: "network", attempts: 3 },
  },
  {
    name: "switching protocols unasked",
    answer: raw("HTTP/1.1 101 Switching Protocols\r\nupgrade: banana\r\nconnection: upgrade\r\n\r\nbananas"),
    ends: network(/./),
  },
  {
    name: "interim responses and then the real one",
    answer: raw(
      `${"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n".repeat(5)}HTTP/1.1 102 Processing\r\n\r\n${SIZED}\r\n${PAGE}`,
    ),
    ends: FINE,
  },
  {
    name: "100 Continue unasked",
    answer: raw(`HTTP/1.1 100 Continue\r\n\r\n${SIZED}\r\n${PAGE}`),
    ends: network(/bad response/),
    deviates:
      "RFC 9110, 15.2.1, lets a client pass over a 100 that it did not ask for; undici ends the connection: `network`.",
  },
  {
    name: "interim responses without end",
    answer: ({ socket }) => drip(socket, "HTTP/1.1 103 Early Hints\r\nx-a: b\r\n\r\n".repeat(20), 10),
    ends: network(/interim/),
  },

  // Headers (RFC 9110, 5; RFC 9112, 5).
  {
    name: "one header of a megabyte",
    answer: raw(`${SIZED}x-huge: ${"z".repeat(1_000_000)}\r\n\r\n${PAGE}`),
    ends: tooLarge(),
  },
  {
    name: "one header without end",
    answer: ({ socket }) => {
      socket.write("HTTP/1.1 200 OK\r\nx-huge: ");
      pour(socket, Buffer.alloc(16_384, "z"));
    },
    ends: tooLarge(),
  },
  {
    name: "one header name without end",
    answer: ({ socket }) => {
      socket.write("HTTP/1.1 200 OK\r\n");
      pour(socket, Buffer.alloc(16_384, "z"));
    },
    ends: tooLarge(),
  },
  {
    name: "20,000 headers",
    answer: raw(
      `${HEAD}${Array.from({ length: 20_000 }, (_, n) => `x-${n}: ${n}\r\n`).join("")}content-length: 2\r\n\r\nok`,
    ),
    ends: tooLarge(),
  },
  {
    name: "headers without end",
    answer: ({ socket }) => {
      socket.write("HTTP/1.1 200 OK\r\n");
      pour(socket, Buffer.from(`x-flood: ${"y".repeat(1_000)}\r\n`.repeat(16)));
    },
    ends: tooLarge(),
  },
  {
    name: "200 cookies",
    answer: raw(
      `${SIZED}${Array.from({ length: 200 }, (_, n) => `set-cookie: a${n}=${n}\r\n`).join("")}\r\n${PAGE}`,
    ),
    ends: FINE,
  },
  {
    name: "1,000 cookies",
    answer: raw(
      `${SIZED}${Array.from({ length: 1_000 }, (_, n) => `set-cookie: a${n}=${n}\r\n`).join("")}\r\n${PAGE}`,
    ),
    ends: tooLarge(),
  },
  {
    name: "a header folded over lines",
    answer: raw(`${SIZED}x-folded: one\r\n two\r\n\tthree\r\n\r\n${PAGE}`),
    ends: network(/./),
    deviates:
      "RFC 9112, 5.2, has folded lines read as one; undici's parser, strict as it is by default, refuses them: `network`.",
  },
  {
    name: "a header line without a colon",
    answer: raw(`${SIZED}this line has no colon\r\n\r\n${PAGE}`),
    ends: network(/./),
  },
  { name: "a header without a name", answer: raw(`${SIZED}: nameless\r\n\r\n${PAGE}`), ends: network(/./) },
  {
    name: "a space before the colon",
    answer: raw(`${SIZED}x-space : here\r\n\r\n${PAGE}`),
    ends: network(/./),
  },
  { name: "a NUL in a header", answer: raw(`${SIZED}x-null: a\u0000b\r\n\r\n${PAGE}`), ends: network(/./) },
  {
    name: "a carriage return in a header",
    answer: raw(`${SIZED}x-cr: a\rset-cookie: b=c\r\n\r\n${PAGE}`),
    ends: network(/./),
  },
  {
    name: "an injected header",
    answer: raw(`${SIZED}x-user: joe\r\nset-cookie: admin=1\r\nlocation: http://10.0.0.1/\r\n\r\n${PAGE}`),
    ends: FINE,
  },
  {
    name: "headers in bytes of no character set",
    answer: raw(
      Buffer.concat([
        Buffer.from(`${SIZED}x-bytes: `),
        Buffer.from([0xff, 0xfe, 0xc3, 0x28]),
        Buffer.from(`\r\n\r\n${PAGE}`),
      ]),
    ),
    ends: FINE,
  },
  {
    name: "headers named like parts of an object",
    answer: raw(`${SIZED}__proto__: x\r\nconstructor: y\r\nhasownproperty: z\r\n\r\n${PAGE}`),
    ends: FINE,
  },
  {
    name: "a keep-alive that promises years",
    answer: ({ socket }) =>
      socket.end(
        Buffer.concat([
          head(200, {
            "content-type": HTML,
            "content-length": PAGE.length,
            "keep-alive": "timeout=999999999",
          }),
          Buffer.from(PAGE),
        ]),
      ),
    ends: FINE,
  },
  {
    name: "a keep-alive that does not keep",
    answer: raw(`${SIZED}connection: keep-alive\r\n\r\n${PAGE}`),
    ends: FINE,
  },
];
