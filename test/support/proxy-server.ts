import { createServer, type IncomingMessage } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";

/** What a proxy does with the requests to connect that come to it. */
export type ProxyMood = "work" | "refuse" | "hang" | "drop" | "unreachable";

/** An HTTP proxy for tests: it connects as it is asked to, unless it is told not to, and has all of it on record. */
export class ProxyServer {
  /** What it was asked to connect to, in order. */
  readonly asked: string[] = [];
  readonly credentials: (string | undefined)[] = [];
  mood: ProxyMood = "work";
  /** What names mean to it; others it looks up itself. */
  readonly names = new Map<string, string>();
  readonly address: string;
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((_request, response) => response.writeHead(405).end());

  private constructor(address: string) {
    this.address = address;
    this.#server.on("connect", (request: IncomingMessage, socket: Socket) => this.#connect(request, socket));
    this.#server.on("connection", (socket) => this.#keep(socket));
  }

  static async start(address = "127.0.0.1"): Promise<ProxyServer> {
    const proxy = new ProxyServer(address);
    await new Promise<void>((done) => proxy.#server.listen(0, address, done));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://${this.address}:${this.port}`;
  }

  /** How many connections to it, and of its own, are open. */
  get connections(): number {
    return this.#sockets.size;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((done) => this.#server.close(done));
  }

  #connect({ url = "", headers }: IncomingMessage, socket: Socket): void {
    this.asked.push(url);
    this.credentials.push(headers["proxy-authorization"]);
    switch (this.mood) {
      case "refuse":
        socket.end("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n");
        return;
      case "unreachable":
        socket.end("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n");
        return;
      case "drop":
        socket.destroy();
        return;
      case "hang":
        return;
    }
    const { hostname, port } = new URL(`http://${url}`);
    const onward = connect(Number(port === "" ? 80 : port), this.names.get(hostname) ?? hostname, () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      socket.pipe(onward).pipe(socket);
    });
    this.#keep(onward);
    onward.on("error", () => socket.destroy()).on("close", () => socket.destroy());
    socket.on("close", () => onward.destroy());
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket.on("error", () => {}).on("close", () => this.#sockets.delete(socket)));
  }
}
