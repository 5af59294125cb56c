import { randomUUID } from "node:crypto";
import type { AddressInfo } from "node:net";
import Fastify, { type FastifyInstance, type HTTPMethods, LogController } from "fastify";
import { ConfigError, messageOf } from "../../lib/errors.js";
import type { Service } from "../../lib/service.js";
import type { ApiToken, Role } from "../../lib/setting-values.js";
import { RequestError } from "../errors.js";
import { Access, defaultRole } from "./access.js";
import { crawlLogRoutes } from "./crawl-log.js";
import { CrawlLogStreams } from "./crawl-log-streams.js";
import { crawlRoutes } from "./crawls.js";
import { dashboardRoutes } from "./dashboard-page.js";
import { deadLetterRoutes } from "./dead-letters.js";
import { deliveryRoutes } from "./deliveries.js";
import { documentRoutes } from "./documents.js";
import { EventStreams } from "./event-streams.js";
import { eventRoutes } from "./events.js";
import { fileRoutes } from "./files.js";
import { healthRoutes } from "./health.js";
import { itemRoutes } from "./items.js";
import { nodeRoutes } from "./nodes.js";
import { notificationRoutes } from "./notifications.js";
import type { ApiParts } from "./parts.js";
import { sendProblem } from "./problem.js";
import { resourceRoutes } from "./resources.js";
import { runRoutes } from "./runs.js";
import { scheduleRoutes } from "./schedules.js";
import { type SpiderUploadOptions, spiderRoutes } from "./spiders.js";
import { urlRoutes } from "./urls.js";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Answers to anyone. */
    readonly open?: boolean;
    /** The least role that may; by default viewers read and operators do the rest. */
    readonly role?: Role;
  }
}

export type ApiServerOptions = {
  /** Address or name to listen on. Anything but loopback needs tokens. */
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly tokens: readonly ApiToken[];
  /** Prefix of every name on the broker. */
  readonly namespace: string;
  /** Of Warren. */
  readonly version: string;
  readonly uploads?: SpiderUploadOptions;
};

const BODY_LIMIT_BYTES = 8 * 1024 * 1024;
/** A request's head and body must be here by then; answers may take as long as they like. */
const REQUEST_TIMEOUT_MS = 30_000;
/** Answers under way at a stop may end in this time; a long download is cut then. */
const CLOSE_GRACE_MS = 3_000;
const METHODS: readonly HTTPMethods[] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/**
 * The HTTP API of a master, with its dashboard. It keeps nothing that another master would need: any of them
 * answers any request.
 */
export class ApiServer implements Service {
  readonly name = "api";
  readonly #options: ApiServerOptions;
  readonly #parts: ApiParts;
  readonly #access: Access;
  readonly #streams: EventStreams;
  readonly #logStreams: CrawlLogStreams;
  #server: FastifyInstance | undefined;

  /** @throws ConfigError when it would listen beyond loopback without tokens */
  constructor(options: ApiServerOptions, parts: ApiParts) {
    this.#options = options;
    this.#parts = parts;
    this.#access = new Access(options.tokens, options.host);
    this.#streams = new EventStreams(parts);
    this.#logStreams = new CrawlLogStreams({ ...parts, logs: parts.store.crawlLogs });
  }

  async start(): Promise<void> {
    const server = this.#build();
    this.#server = server;
    const { host, port } = this.#options;
    try {
      await server.listen({ host, port });
    } catch (error) {
      // Taken, not ours to take, or no address of this machine: nothing that waiting would mend.
      throw new ConfigError(`--port, --host: cannot listen on ${host}, port ${port}: ${messageOf(error)}`, {
        cause: error,
      });
    }
    this.#parts.logger.info({ url: this.url }, "the API is listening");
  }

  async stop(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    // Streams end first: a server that closes waits for its answers.
    this.#streams.close();
    this.#logStreams.close();
    const stopTimer = this.#parts.clock.after(CLOSE_GRACE_MS, () => server.server.closeAllConnections());
    await server.close();
    stopTimer();
    this.#server = undefined;
  }

  /** Where it listens, for example `http://127.0.0.1:8080`; with port 0, known once it has started. */
  get url(): string {
    const address = this.#server?.server.address() as AddressInfo | string | null | undefined;
    const port = typeof address === "object" && address !== null ? address.port : this.#options.port;
    const { host } = this.#options;
    return `http://${host.includes(":") && !host.startsWith("[") ? `[${host}]` : host}:${port}`;
  }

  /** Clients that follow the log of a crawl now. */
  get logClients(): number {
    return this.#logStreams.clients;
  }

  /** Clients that follow events now. */
  get eventClients(): number {
    return this.#streams.clients;
  }

  #build(): FastifyInstance {
    const server = Fastify({
      loggerInstance: this.#parts.logger.child({ part: "api" }),
      logController: new LogController({ disableRequestLogging: true }),
      bodyLimit: BODY_LIMIT_BYTES,
      requestTimeout: REQUEST_TIMEOUT_MS,
      forceCloseConnections: "idle",
      genReqId: () => randomUUID(),
      routerOptions: { maxParamLength: 300 },
      frameworkErrors: (error, request, reply) => void sendProblem(error, request, reply as never),
      clientErrorHandler(error, socket) {
        // Not even a request: nothing to name, so the shortest answer that is still a problem.
        if (!socket.writable || (error as NodeJS.ErrnoException).code === "ECONNRESET")
          return void socket.destroy();
        socket.end(
          "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\r\n" +
            '{"type":"urn:warren:problem:invalid","title":"The request is not valid","status":400,"code":"invalid"}',
        );
      },
    }) as unknown as FastifyInstance;
    this.#takeJsonOnly(server);
    this.#guard(server);
    const methodsByPath = this.#noteRoutes(server);

    server.setErrorHandler((error, request, reply) => sendProblem(error, request, reply));
    server.setNotFoundHandler((request, reply) => {
      const [path] = request.url.split("?", 1);
      return sendProblem(new RequestError("not-found", `there is nothing at ${path}`), request, reply);
    });
    const parts = this.#parts;
    dashboardRoutes(server);
    healthRoutes(server, parts);
    documentRoutes(server, this.#options);
    resourceRoutes(server, parts);
    server.register(
      (api, _options, done) => {
        crawlRoutes(api, parts);
        crawlLogRoutes(api, parts, this.#logStreams);
        urlRoutes(api, parts);
        itemRoutes(api, parts);
        fileRoutes(api, parts);
        spiderRoutes(api, parts, this.#options.uploads);
        nodeRoutes(api, parts);
        runRoutes(api, parts);
        notificationRoutes(api, parts);
        scheduleRoutes(api, parts);
        deadLetterRoutes(api, parts);
        deliveryRoutes(api, parts);
        eventRoutes(api, this.#streams);
        done();
      },
      { prefix: "/api/v1" },
    );
    void server.after(() => refuseOtherMethods(server, methodsByPath));
    return server;
  }

  /** A body is JSON or nothing; `{}` and no body at all are the same to routes that need none. */
  #takeJsonOnly(server: FastifyInstance): void {
    const parseJson = server.getDefaultJsonParser("error", "error");
    server.removeAllContentTypeParsers();
    server.addContentTypeParser("application/json", { parseAs: "string" }, (request, body, done) => {
      if (body.length === 0) return done(null, undefined);
      return parseJson(request, body as string, (error, value) => {
        if (error === null) return done(null, value);
        return done(new RequestError("invalid", `the body is not JSON: ${messageOf(error)}`) as never);
      });
    });
  }

  #guard(server: FastifyInstance): void {
    server.addHook("onRequest", async (request, reply) => {
      reply.header("x-request-id", request.id);
      reply.header("x-content-type-options", "nosniff");
      reply.header("referrer-policy", "no-referrer");
      this.#access.checkOrigin(request);
      const { open, role } = request.routeOptions.config;
      if (open !== true) this.#access.check(request, role ?? defaultRole(request.method));
    });
  }

  #noteRoutes(server: FastifyInstance): Map<string, Set<string>> {
    const methodsByPath = new Map<string, Set<string>>();
    server.addHook("onRoute", ({ url, method }) => {
      const methods = methodsByPath.get(url) ?? new Set();
      for (const one of [method].flat()) methods.add(one);
      methodsByPath.set(url, methods);
    });
    return methodsByPath;
  }
}

/** What is there, but not for this method, is told with the methods that it has (RFC 9110, 15.5.6). */
function refuseOtherMethods(
  server: FastifyInstance,
  methodsByPath: ReadonlyMap<string, ReadonlySet<string>>,
): void {
  for (const [url, methods] of [...methodsByPath]) {
    const allowed = [...methods].sort().join(", ");
    const others = METHODS.filter((method) => !methods.has(method));
    if (others.length === 0) continue;
    server.route({
      method: others,
      url,
      // Refused before its body is looked at, whatever that is.
      onRequest: (request, reply, done) => {
        reply.header("allow", allowed);
        done(new RequestError("method-not-allowed", `${request.method} is not possible here; ${allowed} is`));
      },
      handler: (_request, reply) => reply,
    });
  }
}
