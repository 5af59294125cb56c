// What a worker in another language has to get right, a case each.

/**
 * @typedef {object} Case
 * @property {string} name a claim about the worker
 * @property {string} [path] of the page on the site
 * @property {(origin: string) => object} [task] members of the task beside or instead of the usual ones
 * @property {(result: object, about: { url: string, requests: object[] }) => string | undefined} [fault] what is wrong
 *   with a result
 * @property {"ok" | "conflict" | "unavailable" | "stray" | "cut"} [answer] how the master answers
 */

const codeOf = ({ error }) => (typeof error === "string" ? "spider-error" : error?.code);

/** Links as the master would read them. */
function linksOf({ links = [], url }, taskUrl) {
  return links.flatMap((link) => {
    const text = typeof link === "string" ? link : link.url;
    return URL.canParse(text, url ?? taskUrl) ? [new URL(text, url ?? taskUrl).href] : [];
  });
}

function withLinks(wanted, unwanted = []) {
  return (result, { url }) => {
    if (result.error !== undefined)
      return `it reports an error, ${JSON.stringify(result.error)}, of a page that is there`;
    const links = new Set(linksOf(result, url));
    const missing = wanted.filter((path) => !links.has(new URL(path, url).href));
    if (missing.length > 0)
      return `links are missing: ${missing.join(", ")} (it has ${[...links].join(", ") || "none"})`;
    const tooMany = unwanted.filter((path) => links.has(new URL(path, url).href));
    return tooMany.length > 0 ? `links that are not to be followed: ${tooMany.join(", ")}` : undefined;
  };
}

const withStatus = (status) => (result) =>
  result.statusCode === status ? undefined : `statusCode is ${result.statusCode}; the page answers ${status}`;

const withCode =
  (...codes) =>
  (result) =>
    codes.includes(codeOf(result))
      ? undefined
      : `the error is ${JSON.stringify(result.error)}; its code should be ${codes.join(" or ")}`;

const all =
  (...checks) =>
  (result, about) => {
    for (const check of checks) {
      const fault = check(result, about);
      if (fault !== undefined) return fault;
    }
    return undefined;
  };

const served = withLinks([]);

/** @type {readonly Case[]} */
export const CASES = [
  {
    name: "finds the links of a page, relative ones too, and leaves out those marked nofollow",
    path: "/dir/page",
    fault: all(
      withLinks(["http://other.test/absolute", "/dir/sibling", "/rooted?x=1&y=2", "/up"], ["/not-followed"]),
      withStatus(200),
    ),
  },
  { name: "resolves links against the page's base", path: "/based", fault: withLinks(["/elsewhere/inside"]) },
  { name: "reports the status of a page that is not there", path: "/nowhere", fault: withStatus(404) },
  {
    name: "hands a redirect over, or says where following it has led",
    path: "/moved",
    fault(result, { url }) {
      if (result.statusCode === 302) {
        return result.redirect === "/dir/page" || result.redirect === new URL("/dir/page", url).href
          ? undefined
          : `redirect is ${JSON.stringify(result.redirect)}; it should be the Location, /dir/page`;
      }
      const followed = result.url !== undefined && new URL(result.url, url).pathname === "/dir/page";
      return followed
        ? undefined
        : "neither statusCode 302 with redirect, nor url with the page that it has led to";
    },
  },
  {
    name: "reports a server's failure with its Retry-After",
    path: "/busy",
    fault: all(withStatus(503), ({ retryAfter }) =>
      retryAfter === "7" ? undefined : `retryAfter is ${JSON.stringify(retryAfter)}; the header says 7`,
    ),
  },
  { name: "waits for a page that takes three seconds", path: "/slow", fault: all(served, withStatus(200)) },
  {
    name: "gives up a page that never comes, as a time-out",
    path: "/hanging",
    fault: withCode("timeout"),
  },
  { name: "takes an empty page", path: "/empty", fault: served },
  { name: "reads a page with broken markup", path: "/broken", fault: withLinks(["/first", "/second"]) },
  {
    name: "takes 24 MiB, or gives them up as too large",
    path: "/big",
    fault: (result, about) =>
      (result.error === undefined ? withLinks(["/in-big"]) : withCode("too-large"))(result, about),
  },
  { name: "takes bytes that are no text", path: "/image", fault: served },
  { name: "takes a page of no stated type", path: "/no-type", fault: served },
  {
    name: "reads a page of a charset that nobody knows",
    path: "/strange-charset",
    fault: withLinks(["/after-charset"]),
  },
  {
    name: "reads a page that is not the UTF-8 that it should be",
    path: "/not-utf8",
    fault: withLinks(["/after-latin1"]),
  },
  {
    name: "reports a host that is down as a fault of the network",
    task: () => ({ url: "http://127.0.0.1:1/" }),
    fault: withCode("network"),
  },
  {
    name: "does not fetch what waited too long, and says so",
    path: "/task/expired",
    task: () => ({ notAfter: Date.now() - 1_000 }),
    fault: all(withCode("expired"), (_result, { requests }) =>
      requests.some(({ path }) => path === "/task/expired") ? "it fetched the page all the same" : undefined,
    ),
  },
  {
    name: "sends the method, the headers and the body that a task asks for",
    path: "/posted",
    task: () => ({ method: "POST", headers: { "x-conformance": "yes" }, body: "a=1&b=ü" }),
    fault(result, about) {
      const request = about.requests.find(({ path }) => path === "/posted");
      if (request === undefined) return "the page was never asked for";
      if (request.method !== "POST") return `the method was ${request.method}; it should be POST`;
      if (request.headers["x-conformance"] !== "yes") return "the header x-conformance was not sent";
      if (request.body !== "a=1&b=ü") return `the body was ${JSON.stringify(request.body)}`;
      return served(result, about);
    },
  },
  {
    name: "ignores members of a task that it does not know",
    path: "/task/unknown-members",
    task: () => ({ "x-new": { deep: [1, null] }, meta: { a: 1 }, params: {} }),
    fault: served,
  },
  {
    name: "waits for the answer to its own call, whatever else arrives",
    path: "/task/stray",
    fault: served,
    answer: "stray",
  },
  {
    name: "acknowledges a task whose result is refused for good",
    path: "/task/conflict",
    fault: served,
    answer: "conflict",
  },
  {
    name: "hands the result in again when no master can take it now",
    path: "/task/unavailable",
    fault: served,
    answer: "unavailable",
  },
  {
    name: "comes back when its connection is cut, and takes the task that it had once more",
    path: "/task/cut",
    fault: served,
    answer: "cut",
  },
];
