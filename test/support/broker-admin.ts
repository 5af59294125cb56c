/** RabbitMQ's management API, for a user who may do everything. */
export class BrokerAdmin {
  readonly #base: string;
  readonly #authorization: string;

  /** @param url with its user and password, guest by default */
  constructor(url: string) {
    const { origin, username, password } = new URL(url);
    this.#base = `${origin}/api/`;
    const login =
      username === "" ? "guest:guest" : `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    this.#authorization = `Basic ${Buffer.from(login).toString("base64")}`;
  }

  get(path: string): Promise<unknown> {
    return this.#request("GET", path);
  }

  async put(path: string, body: unknown): Promise<void> {
    await this.#request("PUT", path, body);
  }

  async delete(path: string): Promise<void> {
    await this.#request("DELETE", path);
  }

  async #request(method: string, path: string, body?: unknown): Promise<unknown> {
    const response = await fetch(this.#base + path, {
      method,
      headers: { authorization: this.#authorization, "content-type": "application/json" },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === "" ? undefined : JSON.parse(text);
  }
}
