import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { PrivateRabbit } from "../../scripts/servers.mjs";
import { BrokerAdmin } from "./broker-admin.js";

const run = promisify(execFile);
const SCRIPT = path.resolve(import.meta.dirname, "../../scripts/rabbitmq-users.mjs");

/** Users of a namespace, made by the script: on the test run's broker if its management API is known, else on our own. */
export class BrokerUsers {
  /** For the user who may do everything. */
  readonly brokerUrl: string;
  readonly admin: BrokerAdmin;
  readonly #namespace: string;
  readonly #managementUrl: string;
  readonly #own: { readonly rabbit: PrivateRabbit; readonly folder: string } | undefined;
  readonly #passwords = new Map<string, string>();

  private constructor(
    namespace: string,
    urls: { readonly broker: string; readonly management: string },
    own?: { readonly rabbit: PrivateRabbit; readonly folder: string },
  ) {
    this.#namespace = namespace;
    this.brokerUrl = urls.broker;
    this.#managementUrl = urls.management;
    this.admin = new BrokerAdmin(urls.management);
    this.#own = own;
  }

  static async open(namespace: string): Promise<BrokerUsers> {
    const { AMQP_URL, RABBITMQ_MANAGEMENT_URL: management } = process.env;
    const broker = AMQP_URL?.split(",")[0];
    if (broker !== undefined && management !== undefined)
      return new BrokerUsers(namespace, { broker, management });
    const folder = await mkdtemp(path.join(tmpdir(), "warren-users-"));
    const rabbit = new PrivateRabbit({ folder });
    await rabbit.start();
    const urls = { broker: rabbit.url, management: rabbit.managementUrl };
    return new BrokerUsers(namespace, urls, { rabbit, folder });
  }

  /** Runs the script, and keeps the passwords that it shows. @returns what it says, without them */
  async make(...args: string[]): Promise<readonly string[]> {
    const flags = ["--management-url", this.#managementUrl, "--namespace", this.#namespace, ...args];
    const { stdout } = await run(process.execPath, [SCRIPT, ...flags]);
    const said = stdout.trim().split("\n");
    for (const line of said) {
      const [, user, password] = /^(\S+): .*, password (\S+)$/.exec(line) ?? [];
      if (user !== undefined && password !== undefined) this.#passwords.set(user, password);
    }
    return said.map((line) => line.replace(/password .*/, "password"));
  }

  /** The broker's URL for one of them: `master`, `worker-n2` and so on. */
  urlFor(user: string): string {
    const url = new URL(this.brokerUrl);
    url.username = `${this.#namespace}-${user}`;
    url.password = this.#passwords.get(url.username) ?? "";
    return url.href;
  }

  /** Removes the users; or the broker, if it is our own. */
  async dispose(): Promise<void> {
    if (this.#own === undefined) {
      for (const user of this.#passwords.keys()) await this.admin.delete(`users/${user}`);
      return;
    }
    await this.#own.rabbit.stop();
    await rm(this.#own.folder, { recursive: true, force: true });
  }
}
