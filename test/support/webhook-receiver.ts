import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A post as it came. */
export type ReceivedPost = {
  readonly path: string;
  readonly id: string;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of any shape
  readonly body: any;
};

/** What a receiver does with a post, told how many to the same path came before. */
export type Answering = (post: ReceivedPost, before: number, response: ServerResponse) => void;

/** Someone who is posted to. By path, it answers as it is told; 204 by default. */
export class WebhookReceiver {
  readonly posts: ReceivedPost[] = [];
  readonly #answers = new Map<string, Answering>();
  readonly #server: Server;
  readonly #waiting = new Set<() => void>();
  /** Posts that are not answered yet; and the most there were at once. */
  #open = 0;
  mostAtOnce = 0;

  private constructor() {
    this.#server = createServer((request, response) => {
      this.#open += 1;
      this.mostAtOnce = Math.max(this.mostAtOnce, this.#open);
      response.on("close", () => {
        this.#open -= 1;
      });
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        const path = request.url ?? "";
        const post: ReceivedPost = {
          path,
          id: String(request.headers["webhook-id"]),
          headers: request.headers,
          text,
          body: text === "" ? undefined : JSON.parse(text),
        };
        const before = this.posts.filter((other) => other.path === path).length;
        this.posts.push(post);
        const answer = this.#answers.get(path);
        if (answer === undefined) response.writeHead(204).end();
        else answer(post, before, response);
        for (const look of this.#waiting) look();
      });
    });
  }

  static async start(): Promise<WebhookReceiver> {
    const receiver = new WebhookReceiver();
    await new Promise<void>((resolve) => receiver.#server.listen(0, "127.0.0.1", resolve));
    return receiver;
  }

  url(path = "/"): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}${path}`;
  }

  answer(path: string, answering: Answering): void {
    this.#answers.set(path, answering);
  }

  to(path: string): readonly ReceivedPost[] {
    return this.posts.filter((post) => post.path === path);
  }

  /** Resolves once this is so. @throws Error after twenty seconds, saying what came instead */
  async until(isSo: () => boolean): Promise<void> {
    if (isSo()) return;
    await new Promise<void>((resolve, reject) => {
      const look = () => {
        if (!isSo()) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(look);
        const came = this.posts.map(({ path, id }) => `${path} ${id}`).slice(-20);
        reject(new Error(`not within 20 s; of ${this.posts.length} posts the last: ${came.join(", ")}`));
      }, 20_000);
      this.#waiting.add(look);
    });
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
