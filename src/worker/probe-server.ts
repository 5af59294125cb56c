import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { ConfigError } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";

/** What must hold for a worker to be ready, by name. */
export type Checks = Readonly<Record<string, () => boolean>>;

/** A worker's `/healthz`, `/readyz` and `/metrics`, on loopback. */
export class ProbeServer implements Service {
  readonly name = "probe server";
  readonly #server: Server;
  readonly #port: number;
  readonly #logger: Logger;

  constructor(options: { port: number }, deps: { metrics: Metrics; logger: Logger; checks: Checks }) {
    this.#port = options.port;
    this.#logger = deps.logger;
    this.#server = createServer((request, response) => {
      const answer = (status: number, type: string, body: string) => {
        response.writeHead(status, { "content-type": type }).end(body);
      };
      if (request.url === "/healthz") return answer(200, "application/json", '{"status":"ok"}');
      if (request.url === "/readyz") {
        const checks = Object.fromEntries(
          Object.entries(deps.checks).map(([name, holds]) => [name, holds()]),
        );
        const isReady = Object.values(checks).every(Boolean);
        return answer(isReady ? 200 : 503, "application/json", JSON.stringify({ ready: isReady, checks }));
      }
      if (request.url !== "/metrics") return answer(404, "text/plain", "not found\n");
      deps.metrics.registry.metrics().then(
        (text) => answer(200, deps.metrics.registry.contentType, text),
        () => answer(500, "text/plain", "could not collect the metrics\n"),
      );
    });
  }

  async start(): Promise<void> {
    this.#server.listen(this.#port, "127.0.0.1");
    try {
      await once(this.#server, "listening");
    } catch (error) {
      throw new ConfigError(`--metrics-port: cannot listen on port ${this.#port}`, { cause: error });
    }
    this.#logger.info({ address: this.#server.address() }, "serving health and metrics");
  }

  async stop(): Promise<void> {
    if (!this.#server.listening) return;
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, "close");
  }
}
