import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What a path answers: HTML, or whatever a handler does. */
export type PageAnswer = string | ((request: IncomingMessage, response: ServerResponse) => void);

/** A web server on loopback whose pages a test writes, and which notes what is asked of it. */
export class PageServer {
  readonly #server = createServer((request, response) => this.#answer(request, response));
  readonly #pages = new Map<string, PageAnswer>();
  /** `METHOD path`, in the order in which they came; `UPGRADE path` for WebSockets. */
  readonly requests: string[] = [];
  #connections = 0;

  constructor() {
    this.#server.on("connection", () => {
      this.#connections += 1;
    });
    this.#server.on("upgrade", (request, socket) => {
      this.requests.push(`UPGRADE ${request.url}`);
      socket.destroy();
    });
  }

  async start(): Promise<this> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return this;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get connections(): number {
    return this.#connections;
  }

  url(path: string, host = "127.0.0.1"): string {
    return `http://${host}:${this.port}${path}`;
  }

  /** Sets what a path answers, its query not looked at. */
  serve(path: string, answer: PageAnswer): this {
    this.#pages.set(path, answer);
    return this;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = (request.url ?? "/").split("?", 1)[0] ?? "/";
    this.requests.push(`${request.method} ${request.url}`);
    const page = this.#pages.get(path);
    if (page === undefined) {
      response.writeHead(404, { "content-type": "text/html" }).end("no such page");
    } else if (typeof page === "string") {
      response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(page);
    } else {
      page(request, response);
    }
  }
}
