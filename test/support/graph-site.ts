import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

export type GraphSiteOptions = {
  readonly pages: number;
  /** Loopback addresses over which the pages are spread. */
  readonly hosts: number;
  /** Links on each page. */
  readonly links: number;
  /** Time each page takes, in milliseconds. */
  readonly delayMs?: number;
  /** robots.txt. @default 404 */
  readonly robots?: string;
};

/** A site of linked pages on several hosts, all reachable from the first; it keeps count of who asked for what. */
export class GraphSite {
  readonly options: GraphSiteOptions;
  /** Requests by page number, robots.txt left out. */
  readonly requests = new Map<number, number>();
  readonly #server: Server;
  #port = 0;

  private constructor(options: GraphSiteOptions) {
    this.options = options;
    this.#server = createServer((request, response) => {
      if (request.url === "/robots.txt") {
        response.writeHead(options.robots === undefined ? 404 : 200, { "content-type": "text/plain" });
        return void response.end(options.robots);
      }
      const number = Number(request.url?.slice(1));
      if (!Number.isInteger(number) || number < 0 || number >= options.pages) {
        return void response.writeHead(404).end();
      }
      this.requests.set(number, (this.requests.get(number) ?? 0) + 1);
      const answer = () => response.writeHead(200, { "content-type": "text/html" }).end(this.#html(number));
      if (options.delayMs === undefined) answer();
      else setTimeout(answer, options.delayMs);
    });
  }

  static async start(options: GraphSiteOptions): Promise<GraphSite> {
    const site = new GraphSite(options);
    site.#server.listen(0, "0.0.0.0");
    await once(site.#server, "listening");
    site.#port = (site.#server.address() as AddressInfo).port;
    return site;
  }

  urlOf(number: number): string {
    return `http://127.0.9.${1 + (number % this.options.hosts)}:${this.#port}/${number}`;
  }

  get seed(): string {
    return this.urlOf(0);
  }

  /** Pages that were asked for more than once. */
  get repeated(): number[] {
    return [...this.requests].filter(([, times]) => times > 1).map(([number]) => number);
  }

  async stop(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, "close");
  }

  #html(number: number): string {
    const { pages, links } = this.options;
    const targets = Array.from({ length: links }, (_, index) => (number * links + index + 1) % pages);
    const anchors = targets.map((target) => `<p>See <a href="${this.urlOf(target)}">page ${target}</a>.</p>`);
    return `<!doctype html><title>Page ${number}</title><h1>Page ${number}</h1>${anchors.join("")}`;
  }
}
