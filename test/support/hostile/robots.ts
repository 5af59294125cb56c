import {
  type Answer,
  ATTEMPTS,
  drip,
  FINE,
  type HostileBehaviour,
  HTML,
  head,
  MiB,
  PAGE,
  pour,
  raw,
  redirect,
  reply,
  skipped,
  status,
} from "./behaviour.js";

function text(body: string | (() => string)): Answer {
  return ({ socket }) =>
    reply(socket, typeof body === "function" ? body() : body, { "content-type": "text/plain" });
}

/** Unreachable by RFC 9309, 2.3.1.4: nothing is allowed until it answers. */
const UNTIL_IT_ANSWERS = skipped("robots", { attempts: ATTEMPTS, error: /robots\.txt could not be had/ });
/** The same where the host gave no answer at all: then that is why the URL was not had. */
function silent(reason: "network" | "timeout"): HostileBehaviour["ends"] {
  return { state: "failed", reason, attempts: ATTEMPTS, error: /robots\.txt could not be had/ };
}
const FORBIDDEN = skipped("robots", { attempts: 0 });

/** What hosts do instead of answering with a robots.txt (RFC 9309). */
export const ROBOTS: readonly HostileBehaviour[] = [
  { name: "robots.txt forbids it", robots: text("User-agent: *\nDisallow: /\n"), ends: FORBIDDEN },
  {
    name: "robots.txt with a mark, odd line ends and spaces",
    robots: text("\ufeffUSER-AGENT : *\r  disallow:/robots.txt-with\r\r\n"),
    ends: FORBIDDEN,
  },
  { name: "robots.txt always 500", robots: status(500), ends: UNTIL_IT_ANSWERS },
  {
    name: "robots.txt always 503",
    robots: status(503, { "retry-after": "31536000" }),
    ends: UNTIL_IT_ANSWERS,
  },
  {
    name: "robots.txt 500 and then fine",
    robots: (visit) => (visit.count > 1 ? text("")(visit) : status(500)(visit)),
    ends: { ...FINE, attempts: 2 },
  },
  ...[401, 403, 404, 410, 429, 451].map(
    (statusCode): HostileBehaviour => ({
      name: `robots.txt always ${statusCode}`,
      robots: status(statusCode),
      ends: FINE,
    }),
  ),
  { name: "robots.txt in a circle", robots: redirect("/robots.txt"), ends: FINE },
  {
    name: "robots.txt after 5 redirects",
    path: "/page",
    robots: redirect("/hop/4"),
    answer: ({ socket, path }) => {
      const left = /^\/hop\/(\d)$/.exec(path)?.[1];
      if (left === undefined) reply(socket);
      else if (left === "0")
        reply(socket, "User-agent: *\nDisallow: /page\n", { "content-type": "text/plain" });
      else reply(socket, "", { location: `/hop/${Number(left) - 1}` }, 302);
    },
    ends: FORBIDDEN,
  },
  {
    name: "robots.txt led inside",
    robots: redirect("http://169.254.169.254/robots.txt"),
    ends: UNTIL_IT_ANSWERS,
  },
  { name: "robots.txt led to no web page", robots: redirect("file:///etc/passwd"), ends: FINE },
  {
    name: "robots.txt of 100 MB",
    robots: ({ socket }) => {
      socket.write(head(200, { "content-type": "text/plain", "content-length": 100 * MiB }));
      pour(socket, Buffer.alloc(65_536, "Disallow: /elsewhere\n"));
    },
    ends: FINE,
  },
  {
    name: "robots.txt without end",
    robots: ({ socket }) => {
      socket.write(head(200, { "content-type": "text/plain" }));
      socket.write("User-agent: *\nDisallow: /robots.txt-without-end\n");
      pour(socket, Buffer.alloc(65_536, "# and so on\n"));
    },
    ends: FORBIDDEN,
  },
  {
    name: "robots.txt of one line without end",
    robots: ({ socket }) => {
      socket.write(head(200, { "content-type": "text/plain" }));
      pour(socket, Buffer.alloc(65_536, "Disallow"));
    },
    ends: FINE,
  },
  {
    name: "robots.txt that is HTML",
    robots: ({ socket }) => reply(socket, PAGE, { "content-type": HTML }),
    ends: FINE,
  },
  {
    name: "robots.txt that is noise",
    robots: ({ socket }) =>
      reply(socket, Buffer.from(Array.from({ length: 50_000 }, (_, n) => (n * 2_654_435_761) >>> 24)), {
        "content-type": "text/plain",
      }),
    ends: FINE,
  },
  {
    name: "robots.txt of a pattern made to take long",
    robots: text(`User-agent: *\nDisallow: /${"*a".repeat(5_000)}$\n`),
    path: `/${"a".repeat(4_000)}`,
    ends: FINE,
  },
  {
    name: "robots.txt byte by byte",
    robots: ({ socket }) => {
      socket.write(head(200, { "content-type": "text/plain" }));
      drip(socket, "#");
    },
    ends: silent("timeout"),
  },
  { name: "robots.txt never", robots: () => {}, ends: silent("timeout") },
  { name: "robots.txt reset", robots: ({ socket }) => socket.resetAndDestroy(), ends: silent("network") },
  {
    name: "robots.txt cut off",
    robots: raw("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nUser-agent: *\nDisallow: /"),
    ends: silent("network"),
  },
  {
    name: "robots.txt that is no HTTP",
    robots: raw("User-agent: *\nDisallow: /\n"),
    ends: silent("network"),
  },
];
