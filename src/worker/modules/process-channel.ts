import { Socket } from "node:net";
import { FrameReader, writeFrame } from "./frames.js";
import { errorOf, FRAMES_FD, type FromProcess, type ModuleCall, type ToProcess } from "./messages.js";

/** Questions of a spider that may wait for their answers. */
const MAX_CALLS = 1_000;

type Waiting = { readonly resolve: (value: unknown) => void; readonly reject: (error: Error) => void };

/** The way from a process of spiders to the worker, and back. */
export class ProcessChannel {
  readonly #socket = new Socket({ fd: FRAMES_FD, readable: true, writable: true });
  readonly #calls = new Map<number, Waiting>();
  #lastCall = 0;

  /** @param onMessage gets all but the answers to calls */
  constructor(onMessage: (message: ToProcess, body: Buffer) => void, onGone: () => void) {
    const reader = new FrameReader(({ head, body }) => {
      const message = head as ToProcess;
      if (message.type === "answer") this.#settle(message.id)?.resolve(message.value);
      else if (message.type === "refusal") this.#settle(message.id)?.reject(errorOf(message.error));
      else onMessage(message, body);
    });
    this.#socket.on("data", (piece) => reader.push(piece));
    this.#socket.on("error", onGone);
    this.#socket.on("close", onGone);
  }

  /** @throws Error when it holds what cannot be sent */
  send(message: FromProcess): void {
    writeFrame(this.#socket, message);
  }

  /** Resolves when all that was sent has been handed over. */
  async flush(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#socket.write(Buffer.alloc(0), () => resolve());
    });
  }

  /** @throws what the worker refuses it with */
  call(call: ModuleCall): Promise<unknown> {
    if (this.#calls.size >= MAX_CALLS) {
      return Promise.reject(
        new Error(`${MAX_CALLS} questions wait for their answers: wait for some of them`),
      );
    }
    this.#lastCall += 1;
    const id = this.#lastCall;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      try {
        this.send({ type: "call", id, call });
      } catch (error) {
        this.#calls.delete(id);
        reject(error);
      }
    });
  }

  #settle(id: number): Waiting | undefined {
    const waiting = this.#calls.get(id);
    this.#calls.delete(id);
    return waiting;
  }
}
