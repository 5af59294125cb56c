import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { PrivateRabbit } from "../../scripts/servers.mjs";

/** A broker that may be broken: nobody else uses it. */
export class PrivateBroker {
  readonly rabbit: PrivateRabbit;
  readonly #folder: string;

  private constructor(rabbit: PrivateRabbit, folder: string) {
    this.rabbit = rabbit;
    this.#folder = folder;
  }

  static async start(): Promise<PrivateBroker> {
    const folder = await mkdtemp(path.join(tmpdir(), "warren-faults-"));
    const broker = new PrivateBroker(new PrivateRabbit({ folder: path.join(folder, "rabbitmq") }), folder);
    await broker.rabbit.start();
    return broker;
  }

  get url(): string {
    return this.rabbit.url;
  }

  /** Sets off the alarm of the broker's memory. */
  async raiseAlarm(): Promise<void> {
    await this.rabbit.control("set_vm_memory_high_watermark", "0.0000001");
  }

  async liftAlarm(): Promise<void> {
    await this.rabbit.control("set_vm_memory_high_watermark", "0.6");
  }

  /** Closes the channels of consumers that keep a message for longer; for channels that open from now on. */
  async limitConsumers(timeoutMs: number): Promise<void> {
    const set = (name: string, ms: number) => `application:set_env(rabbit, ${name}, ${ms})`;
    // It looks at them once in a while only.
    await this.rabbit.control(
      "eval",
      `${set("consumer_timeout", timeoutMs)}, ${set("channel_tick_interval", 500)}.`,
    );
  }

  async stop(): Promise<void> {
    await this.rabbit.stop();
    await rm(this.#folder, { recursive: true, force: true });
  }
}
