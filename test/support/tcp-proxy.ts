import { connect, createServer, type Server, type Socket } from "node:net";

type Pair = { readonly client: Socket; readonly server: Socket };

/** A way to a server that can be closed, cut, frozen, or made to say what the server did not. */
export class TcpProxy {
  readonly #target: URL;
  readonly #pairs = new Set<Pair>();
  #server: Server | undefined;
  #port = 0;
  #isFrozen = false;

  /** @param target where the server really is */
  constructor(target: string) {
    this.#target = new URL(target);
  }

  /** The target's URL, by way of the proxy. */
  get url(): string {
    const url = new URL(this.#target);
    url.hostname = "127.0.0.1";
    url.port = String(this.#port);
    return url.href;
  }

  get connections(): number {
    return this.#pairs.size;
  }

  /** Takes connections from now on, on the same port each time. */
  async open(): Promise<this> {
    const server = createServer((client) => this.#join(client));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.#port, "127.0.0.1", resolve);
    });
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("the proxy has no port");
    this.#port = address.port;
    this.#server = server;
    return this;
  }

  /** Cuts what there is and takes no more. */
  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    const closed = new Promise((resolve) => server.close(resolve));
    this.cut();
    await closed;
  }

  /** Ends all connections that there are; new ones are taken. */
  cut(): void {
    for (const { client, server } of this.#pairs) {
      client.destroy();
      server.destroy();
    }
  }

  /** Holds back everything that the server says, and hands nothing more to it. */
  freeze(): void {
    this.#isFrozen = true;
    for (const pair of this.#pairs) hold(pair);
  }

  thaw(): void {
    this.#isFrozen = false;
    for (const { client, server } of this.#pairs) {
      client.pipe(server);
      server.pipe(client);
    }
  }

  /** Says something in the server's name; only to be used while the server itself is silent. */
  say(bytes: Buffer): void {
    for (const { client } of this.#pairs) client.write(bytes);
  }

  #join(client: Socket): void {
    const server = connect(Number(this.#target.port || 5672), this.#target.hostname);
    const pair = { client, server };
    this.#pairs.add(pair);
    const end = () => {
      client.destroy();
      server.destroy();
      this.#pairs.delete(pair);
    };
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on("error", end);
      socket.on("close", end);
    }
    client.pipe(server);
    server.pipe(client);
    if (this.#isFrozen) hold(pair);
  }
}

function hold({ client, server }: Pair): void {
  client.unpipe(server);
  server.unpipe(client);
  client.pause();
  server.pause();
}
