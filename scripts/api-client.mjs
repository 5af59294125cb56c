/** The strongest first. */
const ROLES = ["admin", "operator", "viewer"];

/** A master that does not answer for so long does not answer. */
const TIMEOUT_MS = 10_000;

/** The HTTP API of a master on this machine. */
export class ApiClient {
  url;
  #headers;

  /**
   * @param {string} url
   * @param {string | undefined} tokens as in WARREN_API_TOKENS, which the master was given as well
   */
  constructor(url, tokens) {
    this.url = url;
    const token = strongest(tokens ?? "");
    this.#headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  /** @returns {Promise<any>} the JSON that the route answers with */
  async get(route) {
    return (await this.#ask(route)).json();
  }

  /** @returns {Promise<Buffer>} the body that the route answers with */
  async bytes(route) {
    return Buffer.from(await (await this.#ask(route)).arrayBuffer());
  }

  /** All rows of a list, over its pages. */
  async *list(route) {
    let cursor = "";
    do {
      const { items, next } = await this.get(`${route}?limit=200${cursor}`);
      yield* items;
      cursor = next === null ? "" : `&cursor=${encodeURIComponent(next)}`;
    } while (cursor !== "");
  }

  /**
   * @returns {Promise<{ status: number, body: any }>} whatever the status
   */
  async post(route, body) {
    const response = await fetch(`${this.url}${route}`, {
      method: "POST",
      headers: { ...this.#headers, "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    return { status: response.status, body: await response.json() };
  }

  async #ask(route) {
    const response = await fetch(`${this.url}${route}`, {
      headers: this.#headers,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (!response.ok)
      throw new Error(`GET ${route} was answered with ${response.status}: ${await response.text()}`);
    return response;
  }
}

function strongest(tokens) {
  const pairs = tokens.split(",").map((pair) => pair.split(/:(.*)/s).map((part) => part.trim()));
  return ROLES.flatMap((role) => pairs.filter(([name]) => name === role)).at(0)?.[1];
}
