import { readFile } from "node:fs/promises";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, type TlsOptions } from "node:tls";
import { type CertificateFiles, TestAuthority } from "./certificates.js";
import { type HostileBehaviour, reply, status, type Visit } from "./hostile/behaviour.js";

/** A request's head at most: no crawler of ours sends a longer one. */
const MAX_HEAD_BYTES = 65_536;
/** A port on which nobody listens. */
const CLOSED_PORT = 1;

/** One host of the site: an address of its own, and the behaviours that share it. */
type Host = { readonly origin: string; readonly behaviours: readonly HostileBehaviour[] };

type Listening = NonNullable<HostileBehaviour["listens"]>;

/**
 * A site of many hosts, each of which does to its visitors what a behaviour of the table says, byte for byte.
 * Beside them stands an innocent host of linked pages, which does nothing wrong.
 */
export class HostileSite {
  readonly innocentPages: number;
  /** The authority that crawlers are to trust. */
  readonly caFile: string;
  readonly #hosts = new Map<string, Host>();
  readonly #hostOf = new Map<string, Host>();
  readonly #certificates: ReadonlyMap<Listening, TlsOptions>;
  readonly #authorities: readonly TestAuthority[];
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #visits = new Map<string, number>();
  #innocent = "";
  #innocentAt = 0;
  #hostileAt = 0;

  private constructor(
    innocentPages: number,
    authorities: readonly [TestAuthority, TestAuthority],
    certificates: ReadonlyMap<Listening, TlsOptions>,
  ) {
    this.innocentPages = innocentPages;
    this.#authorities = authorities;
    this.#certificates = certificates;
    this.caFile = authorities[0].caFile;
  }

  static async start(behaviours: readonly HostileBehaviour[], innocentPages: number): Promise<HostileSite> {
    const authorities = [await TestAuthority.create(), await TestAuthority.create()] as const;
    const [known, unknown] = authorities;
    // For any host there may be: a certificate names addresses one by one.
    const count = behaviours.length;
    const hosts = [
      `subjectAltName=${Array.from({ length: count }, (_, index) => `IP:${addressOf(index + 1)}`).join(",")}`,
    ];
    const certificates = new Map<Listening, TlsOptions>([
      ["tls", await tlsOptions(known.issue("fine", hosts))],
      ["unknown", await tlsOptions(unknown.issue("unknown", hosts))],
      ["expired", await tlsOptions(known.issue("expired", hosts, -1))],
      ["wrong-host", await tlsOptions(known.issue("wrong-host", ["subjectAltName=DNS:other.example"]))],
    ]);
    const site = new HostileSite(innocentPages, [...authorities], certificates);
    await site.#open(behaviours);
    return site;
  }

  /** The innocent host's first page, from which all others are reached. */
  get innocent(): string {
    return `${this.#innocent}/0`;
  }

  /** The URL that meets a behaviour. */
  urlOf(behaviour: HostileBehaviour): string {
    return new URL(pathOf(behaviour), this.#originOf(behaviour.name)).href;
  }

  /** The URL of another page of a behaviour's host, or the URL itself when it is absolute. */
  resolve(behaviour: HostileBehaviour, target: string): string {
    return new URL(target, this.#originOf(behaviour.name)).href;
  }

  /** Whether the innocent host had its last visit while the hostile ones still had visits to come. */
  get innocentWasFirst(): boolean {
    return this.#innocentAt > 0 && this.#innocentAt < this.#hostileAt;
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#sockets.size;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    const closing = this.#servers.map((server) => new Promise((resolve) => server.close(resolve)));
    await Promise.all(closing);
    await Promise.all(this.#authorities.map((authority) => authority.dispose()));
  }

  async #open(behaviours: readonly HostileBehaviour[]): Promise<void> {
    const groups = new Map<string, HostileBehaviour[]>();
    for (const behaviour of behaviours) {
      const name = behaviour.host ?? behaviour.name;
      groups.set(name, [...(groups.get(name) ?? []), behaviour]);
    }
    let number = 0;
    for (const [name, sharing] of groups) {
      number += 1;
      const address = addressOf(number);
      const [first] = sharing;
      if (first === undefined) continue;
      const { scheme = "http", listens = "plain" } = first;
      const port = listens === "nothing" ? CLOSED_PORT : await this.#listen(address, listens, name);
      const host = { origin: `${scheme}://${address}:${port}`, behaviours: sharing };
      this.#hosts.set(name, host);
      for (const behaviour of sharing) this.#hostOf.set(behaviour.name, host);
    }
    const innocent = createServer((socket) => this.#readRequest(socket, (visit) => this.#beInnocent(visit)));
    this.#innocent = `http://127.77.255.1:${await this.#serve(innocent, "127.77.255.1")}`;
  }

  #listen(address: string, listens: Listening, name: string): Promise<number> {
    const onSocket = (socket: Socket) => this.#meet(socket, name);
    const tls = this.#certificates.get(listens);
    if (tls === undefined) return this.#serve(createServer(onSocket), address);
    return this.#serve(
      createTlsServer(tls, onSocket).on("tlsClientError", () => {}),
      address,
    );
  }

  #serve(server: Server, address: string): Promise<number> {
    this.#servers.push(server);
    server.on("connection", (socket) => {
      this.#sockets.add(socket);
      // What a client cuts off is no concern of the site.
      socket.on("error", () => {});
      socket.on("close", () => this.#sockets.delete(socket));
    });
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(0, address, () => resolve((server.address() as AddressInfo).port));
    });
  }

  #meet(socket: Socket, hostName: string): void {
    socket.on("error", () => {});
    this.#hostileAt = performance.now();
    const host = this.#hosts.get(hostName);
    const [first] = host?.behaviours ?? [];
    if (host === undefined || first === undefined) {
      socket.destroy();
      return;
    }
    if (first.meets !== undefined) {
      socket.resume();
      first.meets(socket);
      return;
    }
    this.#readRequest(
      socket,
      (visit) => {
        // Only the first request of a connection is answered: the rest is silence.
        if (visit.path === "/robots.txt") {
          (host.behaviours.find(({ robots }) => robots !== undefined)?.robots ?? status(404))(visit);
          return;
        }
        const own = host.behaviours.find((behaviour) => pathOf(behaviour) === visit.path);
        const behaviour = own ?? (first.host === undefined ? first : undefined);
        (behaviour?.answer ?? (({ socket }: Visit) => reply(socket)))(visit);
      },
      host.origin,
    );
  }

  #beInnocent({ socket, path }: Visit): void {
    if (path === "/robots.txt") {
      reply(socket, "", { "content-type": "text/plain" });
      return;
    }
    this.#innocentAt = performance.now();
    const number = Number(path.slice(1));
    const links = [1, 2, 3].map((step) => `<a href="/${(number * 3 + step) % this.innocentPages}">x</a>`);
    reply(socket, `<title>Innocent ${number}</title>${links.join("")}`);
  }

  #readRequest(socket: Socket, answer: (visit: Visit) => void, origin = ""): void {
    let request = "";
    socket.once("data", (chunk: Buffer) => {
      // The first byte of a TLS handshake: what a plain server makes of it.
      if (chunk[0] === 0x16) socket.end("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
    });
    const take = (chunk: Buffer) => {
      request += chunk.toString("latin1");
      if (request.length > MAX_HEAD_BYTES) socket.destroy();
      if (!request.includes("\r\n\r\n")) return;
      socket.off("data", take);
      socket.resume();
      const [method = "", path = ""] = request.split(" ", 2);
      const visited = `${origin}${path}`;
      const count = (this.#visits.get(visited) ?? 0) + 1;
      this.#visits.set(visited, count);
      answer({ socket, method, path, count, origin, originOf: (name) => this.#originOf(name) });
    };
    socket.on("data", take);
  }

  #originOf(behaviour: string): string {
    const host = this.#hostOf.get(behaviour);
    if (host === undefined) throw new Error(`no behaviour is called "${behaviour}"`);
    return host.origin;
  }
}

/** The address of the n-th host. */
function addressOf(number: number): string {
  return `127.77.${number >> 8}.${number & 255}`;
}

/** The path at which a behaviour is met. */
function pathOf({ name, path }: HostileBehaviour): string {
  return path ?? `/${name.toLowerCase().replace(/[^a-z0-9.]+/g, "-")}`;
}

async function tlsOptions(issuing: Promise<CertificateFiles>): Promise<TlsOptions> {
  const { certFile, keyFile } = await issuing;
  return { cert: await readFile(certFile), key: await readFile(keyFile) };
}
