import {
  type Answer,
  byPath,
  DONE,
  FINE,
  type HostileBehaviour,
  httpStatus,
  PAGE,
  page,
  raw,
  redirect,
  reply,
  skipped,
  type Visit,
} from "./behaviour.js";

const TOO_MANY = { state: "failed", reason: "too-many-redirects", attempts: 1 } as const;
const REFUSED = skipped("address", { error: /not a public address/ });
/** No URL that could be fetched: what is left is a status that is no 2xx. */
const NO_HTTP = { ...httpStatus(302), error: /no http\(s\) URL/ };

/** `/3` leads over `/2` and `/1` to `/0`, which is fine. */
const chain: Answer = ({ socket, path }) => {
  const left = Number(path.slice(1));
  if (left > 0) reply(socket, "", { location: `/${left - 1}` }, 302);
  else reply(socket);
};

/** From the first path over the others and round again. */
function circle(...paths: readonly string[]): Answer {
  const next = (path: string) => paths[(paths.indexOf(path) + 1) % paths.length] ?? "/";
  return redirect(({ path }) => next(path));
}

/** A redirect to an address that no fetch may reach, however it is written. */
function inside(name: string, location: string, statusCode = 302): HostileBehaviour {
  return { name: `a redirect to ${name}`, answer: redirect(location, statusCode), ends: REFUSED };
}

/** A redirect to something that is no web page. */
function elsewhere(name: string, location: string): HostileBehaviour {
  return { name: `a redirect to a ${name} URL`, answer: redirect(location), ends: NO_HTTP };
}

function refresh(target: string): string {
  return `<!doctype html><title>Fine</title><meta http-equiv="refresh" content="0; url=${target}">`;
}

/** Ways to lead a crawler in circles, astray, or inside. */
export const REDIRECTS: readonly HostileBehaviour[] = [
  { name: "a redirect to itself", answer: redirect(({ path }) => path), ends: TOO_MANY },
  {
    name: "a redirect to itself until a cookie comes back",
    answer: ({ socket, path }) => reply(socket, "", { location: path, "set-cookie": "seen=1" }, 302),
    ends: TOO_MANY,
  },
  { name: "a circle of two redirects", path: "/a", answer: circle("/a", "/b"), ends: TOO_MANY },
  {
    name: "a circle of redirects that leaves out where it began",
    path: "/a",
    answer: byPath({ "/a": redirect("/b"), "/b": redirect("/c"), "/c": redirect("/b") }),
    ends: TOO_MANY,
  },
  { name: "9 redirects", path: "/9", answer: chain, ends: FINE },
  { name: "10 redirects", path: "/10", answer: chain, ends: FINE },
  { name: "11 redirects", path: "/11", answer: chain, ends: TOO_MANY },
  {
    name: "redirects without end",
    path: "/0",
    answer: redirect(({ path }) => `/${Number(path.slice(1)) + 1}`),
    ends: TOO_MANY,
  },
  {
    name: "redirects without end from host to host",
    path: "/here/0",
    answer: redirect(({ path, originOf }) => {
      const steps = Number(path.split("/")[2]) + 1;
      return steps % 2 === 0
        ? `${originOf("redirects without end from host to host")}/here/${steps}`
        : `${originOf("the other end of redirects from host to host")}/there/${steps}`;
    }),
    ends: TOO_MANY,
  },
  {
    name: "the other end of redirects from host to host",
    path: "/fine",
    answer: (visit: Visit) => {
      if (visit.path === "/fine") return reply(visit.socket);
      const steps = Number(visit.path.split("/")[2]) + 1;
      const back = visit.originOf("redirects without end from host to host");
      reply(visit.socket, "", { location: `${back}/here/${steps}` }, 302);
    },
    ends: FINE,
  },
  ...[301, 302, 303, 307, 308].map(
    (statusCode): HostileBehaviour => ({
      name: `a redirect by ${statusCode}`,
      path: "/from",
      answer: byPath({ "/from": redirect("/to", statusCode) }),
      ends: FINE,
    }),
  ),
  {
    name: "a redirect to a page with a relative path and dots",
    path: "/a/b/c",
    answer: byPath({ "/a/b/c": redirect("../../x/./y?z#fragment") }),
    ends: FINE,
  },
  {
    name: "a redirect to a path that is not ASCII",
    path: "/from",
    answer: byPath({
      "/from": raw(Buffer.from("HTTP/1.1 302 Found\r\nlocation: /café\r\ncontent-length: 0\r\n\r\n")),
      "/caf%C3%A9": page("<title>Café</title>"),
    }),
    ends: { ...DONE, title: "Café" },
  },
  {
    name: "a redirect to a path with spaces and controls",
    path: "/from",
    answer: byPath({
      "/from": redirect("/a b\tc\\d"),
      "/a%20bc/d": page("<title>As a browser reads it</title>"),
    }),
    ends: { ...DONE, title: "As a browser reads it" },
  },
  {
    name: "a redirect with a body without end",
    path: "/from",
    answer: byPath({
      "/from": ({ socket }) => {
        socket.write("HTTP/1.1 302 Found\r\nlocation: /to\r\n\r\n");
        const timer = setInterval(() => socket.writable && socket.write("x".repeat(65_536)), 5);
        socket.on("close", () => clearInterval(timer));
      },
    }),
    ends: FINE,
  },
  {
    name: "a redirect to nowhere",
    answer: ({ socket }) => reply(socket, "", {}, 302),
    ends: httpStatus(302),
  },
  { name: "a redirect to nothing", answer: redirect(""), ends: { state: "failed", attempts: 1 } },
  { name: "a redirect to half a URL", answer: redirect("http://"), ends: NO_HTTP },
  {
    name: "a redirect to a port beyond all ports",
    answer: redirect("http://127.0.0.1:99999/"),
    ends: NO_HTTP,
  },
  { name: "a redirect with a password", answer: redirect("http://user:secret@192.0.2.1/"), ends: NO_HTTP },
  {
    name: "a redirect of 100,000 characters",
    answer: ({ socket }) => reply(socket, "", { location: `/${"x".repeat(30_000)}` }, 302),
    ends: NO_HTTP,
  },
  {
    name: "two redirects at once",
    path: "/from",
    answer: byPath({
      "/from": raw(
        "HTTP/1.1 302 Found\r\nlocation: /to\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n",
      ),
    }),
    ends: FINE,
  },
  {
    name: "a redirect out of scope",
    answer: redirect("/denied/page"),
    ends: skipped("scope", { statusCode: 302 }),
  },
  {
    name: "a redirect to a page that is known",
    path: "/from",
    answer: byPath({ "/from": redirect("/known?1"), "/known?1": page(`${PAGE}`) }),
    ends: FINE,
  },
  // 300 offers a choice and 304, 305 and 306 are none; browsers follow the five above only (Fetch, 2.2.3).
  { name: "300 with a location", answer: redirect("/to", 300), ends: httpStatus(300) },
  {
    name: "300 without a location",
    answer: ({ socket }) => reply(socket, PAGE, {}, 300),
    ends: httpStatus(300),
  },
  {
    name: "304 unasked",
    answer: raw('HTTP/1.1 304 Not Modified\r\netag: "a"\r\n\r\n'),
    ends: httpStatus(304),
  },
  { name: "305 to a proxy", answer: redirect("http://192.0.2.1:3128/", 305), ends: httpStatus(305) },
  {
    name: "201 with a location",
    answer: ({ socket }) => reply(socket, PAGE, { location: "http://10.0.0.1/" }, 201),
    ends: { state: "done", statusCode: 201, attempts: 1 },
  },

  inside("a private address", "http://10.0.0.1/"),
  inside("a private address by 308", "http://192.168.1.1/", 308),
  inside("the metadata of a cloud", "http://169.254.169.254/latest/meta-data/"),
  inside("the crawler's own machine", "http://127.0.0.1:22/"),
  inside("the crawler's own machine by IPv6", "http://[::1]/"),
  inside("a private address mapped to IPv6", "http://[::ffff:10.0.0.1]/"),
  inside("a private address behind NAT64", "http://[64:ff9b::10.0.0.1]/"),
  inside("a unique local address", "http://[fd00::1]/"),
  inside("a link-local address", "http://[fe80::1]/"),
  inside("an address in one decimal number", "http://2130706433/"),
  inside("an address in hexadecimal", "http://0x7f.0x0.0x0.0x1/hexadecimal"),
  inside("an address in octal", "http://0177.0.0.01/octal"),
  inside("an address with parts left out", "http://127.1/short"),
  inside("an address in wide digits", encodeURI("http://１２７.0.0.1/wide")),
  inside("no address at all", "http://0.0.0.0/"),
  inside("a broadcast address", "http://255.255.255.255/"),
  inside("a multicast address", "http://224.0.0.1/"),
  {
    name: "a chain of redirects that ends inside",
    path: "/3",
    answer: (visit) => (visit.path === "/0" ? redirect("http://169.254.169.254/")(visit) : chain(visit)),
    ends: REFUSED,
  },
  elsewhere("file", "file:///etc/passwd"),
  elsewhere("javascript", "javascript:alert(1)"),
  elsewhere("data", "data:text/html,<title>x</title>"),
  elsewhere("ftp", "ftp://192.0.2.1/"),
  elsewhere("gopher", "gopher://127.0.0.1:11211/_stats"),

  { name: "a page that refreshes to itself", path: "/self", answer: page(refresh("/self")), ends: FINE },
  {
    name: "two pages that refresh to each other",
    path: "/ping",
    answer: byPath({ "/ping": page(refresh("/pong")), "/pong": page(refresh("/ping")) }),
    ends: FINE,
    leadsTo: { "/pong": FINE },
  },
  {
    name: "a page that refreshes inside",
    answer: page(refresh("http://169.254.169.254/refreshed")),
    ends: FINE,
    leadsTo: { "http://169.254.169.254/refreshed": REFUSED },
  },
];
