import { createHash } from "node:crypto";
import { createTransport, type Transporter } from "nodemailer";
import type { Clock, StopTimer } from "../lib/clock.js";
import type { DueMail } from "../store/index.js";

export type MailServerOptions = {
  /** `smtp://` or `smtps://`, with user and password if the server wants them. */
  readonly url: string;
  /** Sender: an address, or a name and an address in angle brackets. */
  readonly from: string;
  /** How long the server may say nothing, in milliseconds. @default 15_000 */
  readonly silenceMs?: number;
  /** How long one mail may take in all, in milliseconds. @default 45_000 */
  readonly timeoutMs?: number;
};

/** What a mail server said to a mail: taken, not now, or never. */
export type MailOutcome =
  | { readonly kind: "sent" /** Recipients that it did not take. */; readonly refused: readonly string[] }
  | { readonly kind: "again"; readonly error: string }
  | { readonly kind: "refused"; readonly error: string };

/**
 * Where mails are handed in. A connection for each mail: there are few, and one that is kept open is found dead only
 * by the next mail.
 */
export class MailServer {
  readonly timeoutMs: number;
  readonly #transport: Transporter;
  readonly #from: string;
  readonly #domain: string;
  readonly #clock: Clock;

  constructor({ url, from, silenceMs = 15_000, timeoutMs = 45_000 }: MailServerOptions, clock: Clock) {
    this.#clock = clock;
    const { protocol, hostname, port, username, password } = new URL(url);
    const secure = protocol === "smtps:";
    this.timeoutMs = timeoutMs;
    this.#from = from;
    this.#domain = /@([A-Za-z0-9.-]+)/.exec(from)?.[1] ?? "localhost";
    const host = hostname.replace(/^\[(.*)\]$/, "$1");
    const isHere = ["localhost", "127.0.0.1", "::1"].includes(host);
    this.#transport = createTransport({
      ...{ host, port: port === "" ? (secure ? 465 : 587) : Number(port), secure },
      ...(username !== "" && {
        auth: { user: decodeURIComponent(username), pass: decodeURIComponent(password) },
        // A password does not go over the network in the clear.
        requireTLS: !secure && !isHere,
      }),
      ...{ connectionTimeout: silenceMs, greetingTimeout: silenceMs, socketTimeout: silenceMs },
      dnsTimeout: silenceMs,
      disableFileAccess: true,
      disableUrlAccess: true,
    });
  }

  /** Hands a mail in. Handed in again, it has the same Message-ID, by which receivers know it. */
  async send({ id, to, subject, text }: DueMail): Promise<MailOutcome> {
    const messageId = `<${createHash("sha256").update(id).digest("hex").slice(0, 40)}@${this.#domain}>`;
    const sending: Promise<{ readonly rejected?: readonly unknown[] | undefined }> = this.#transport.sendMail(
      {
        ...{ from: this.#from, to: [...to], subject, text, messageId },
        headers: { "Auto-Submitted": "auto-generated" },
      },
    );
    let stopTimer: StopTimer = () => {};
    const late = new Promise<never>((_, reject) => {
      stopTimer = this.#clock.after(this.timeoutMs, () => {
        reject(new Error(`took longer than ${this.timeoutMs} ms`));
      });
    });
    try {
      const { rejected = [] } = await Promise.race([sending, late]);
      return { kind: "sent", refused: rejected.map(String) };
    } catch (error) {
      return outcomeOf(error);
    } finally {
      stopTimer();
      sending.catch(() => {});
    }
  }

  close(): void {
    this.#transport.close();
  }
}

/**
 * What the failure of a mail means. Only what the server says of this mail, its sender, recipients or content, is for
 * good: a wrong password, or a server that takes nothing, is mended by someone, and then it is taken.
 */
function outcomeOf(error: unknown): MailOutcome {
  const { code, responseCode, message } = error as {
    readonly code?: string;
    readonly responseCode?: number;
    readonly message?: string;
  };
  const text = (message ?? String(error)).slice(0, 500);
  const isOfMail = code === "EENVELOPE" || code === "EMESSAGE";
  const isForGood = responseCode !== undefined && responseCode >= 500;
  return isOfMail && isForGood ? { kind: "refused", error: text } : { kind: "again", error: text };
}
