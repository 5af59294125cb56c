import { connect, createServer, type Server, type Socket } from "node:net";
import { Transform, type TransformCallback } from "node:stream";

/** Who is kept from saying anything more to the other. */
export type Side = "client" | "server";

/** A connection: what the client says goes up, what the server says goes down. */
type Pair = {
  readonly client: Socket;
  readonly server: Socket;
  readonly up: Delay;
  readonly down: Delay;
};

/** A way to a server that can be closed, cut, frozen, slowed down, or made to say what the server did not. */
export class TcpProxy {
  readonly #target: URL;
  readonly #pairs = new Set<Pair>();
  readonly #stranded = new Set<Socket>();
  readonly #muted = new Set<Side>();
  #server: Server | undefined;
  #port = 0;
  #latencyMs = 0;
  #cutNextAfter: number | undefined;

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
    for (const socket of this.#stranded) socket.destroy();
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

  /** Ends the next connection that is made when the server has said so many bytes on it. */
  cutNextAfter(bytes: number): void {
    this.#cutNextAfter = bytes;
  }

  /** Ends all connections for their clients, while the server is not told and takes them for alive. */
  strand(): void {
    for (const pair of this.#pairs) {
      const { client, server } = pair;
      this.#pairs.delete(pair);
      hold(pair, "client");
      hold(pair, "server");
      this.#stranded.add(server);
      server.on("close", () => this.#stranded.delete(server));
      client.destroy();
    }
  }

  /** Holds back everything that the server says, and hands nothing more to it. */
  freeze(): void {
    this.mute("client");
    this.mute("server");
  }

  /** Holds back everything that one side says: a connection that is half open. */
  mute(side: Side): void {
    this.#muted.add(side);
    for (const pair of this.#pairs) hold(pair, side);
  }

  thaw(): void {
    this.#muted.clear();
    for (const pair of this.#pairs) {
      hold(pair, "client");
      hold(pair, "server");
      join(pair);
    }
  }

  /** Lets everything arrive so much later, each way. */
  delay(latencyMs: number): void {
    this.#latencyMs = latencyMs;
  }

  /** Says something in the server's name; only to be used while the server itself is silent. */
  say(bytes: Buffer): void {
    for (const { client } of this.#pairs) client.write(bytes);
  }

  #join(client: Socket): void {
    const server = connect(Number(this.#target.port || 5672), this.#target.hostname);
    const pair: Pair = {
      ...{ client, server },
      up: new Delay(() => this.#latencyMs),
      down: new Delay(() => this.#latencyMs),
    };
    this.#pairs.add(pair);
    const end = () => {
      // The server's end of a stranded connection is left alone.
      if (!this.#pairs.delete(pair)) return;
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on("error", end);
      socket.on("close", end);
    }
    pair.up.pipe(server);
    pair.down.pipe(client);
    join(pair);
    for (const side of this.#muted) hold(pair, side);
    this.#cutInTime(pair, end);
  }

  #cutInTime({ server }: Pair, end: () => void): void {
    let left = this.#cutNextAfter;
    this.#cutNextAfter = undefined;
    if (left === undefined) return;
    server.on("data", (bytes: Buffer) => {
      left = (left ?? 0) - bytes.length;
      if (left <= 0) end();
    });
  }
}

function join({ client, server, up, down }: Pair): void {
  client.pipe(up);
  server.pipe(down);
}

function hold({ client, server, up, down }: Pair, side: Side): void {
  const [from, to] = side === "client" ? [client, up] : [server, down];
  from.unpipe(to);
  from.pause();
}

/** Hands on what it is given after a while, in its order. */
class Delay extends Transform {
  readonly #latencyMs: () => number;
  readonly #held: Buffer[] = [];

  constructor(latencyMs: () => number) {
    super();
    this.#latencyMs = latencyMs;
  }

  override _transform(bytes: Buffer, _: BufferEncoding, done: TransformCallback): void {
    const latencyMs = this.#latencyMs();
    if (latencyMs === 0 && this.#held.length === 0) {
      done(null, bytes);
      return;
    }
    this.#held.push(bytes);
    setTimeout(() => {
      if (!this.destroyed) this.push(this.#held.shift());
    }, latencyMs);
    done();
  }
}
