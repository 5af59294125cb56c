import type { FastifyInstance } from "fastify";
import { messageOf } from "../../lib/errors.js";
import type { ApiParts } from "./parts.js";

/** A server that does not answer by then is not there, for all that matters here. */
const CHECK_TIMEOUT_MS = 2_000;

type Check = { readonly ok: true } | { readonly ok: false; readonly error: string };

/** Whether it lives, whether it can work, and its numbers. */
export function healthRoutes(
  server: FastifyInstance,
  { store, bus, metrics, clock }: Pick<ApiParts, "store" | "bus" | "metrics" | "clock">,
): void {
  const check = async (run: () => Promise<void>): Promise<Check> => {
    const running = run();
    // It may still fail when nobody waits for it any more.
    running.catch(() => {});
    let stopTimer = () => {};
    const late = new Promise<never>((_resolve, reject) => {
      stopTimer = clock.after(CHECK_TIMEOUT_MS, () =>
        reject(new Error(`no answer within ${CHECK_TIMEOUT_MS} ms`)),
      );
    });
    try {
      await Promise.race([running, late]);
      return { ok: true };
    } catch (error) {
      return { ok: false, error: messageOf(error) };
    } finally {
      stopTimer();
    }
  };

  server.get("/healthz", { config: { open: true } }, () => ({ ok: true }));

  server.get("/readyz", { config: { open: true } }, async (_request, reply) => {
    const [amqp, mongodb] = await Promise.all([
      check(async () => {
        if (!bus.connected) throw new Error("not connected to RabbitMQ");
      }),
      check(() => store.ping()),
    ]);
    const ready = amqp.ok && mongodb.ok;
    reply.header("cache-control", "no-store");
    return reply.code(ready ? 200 : 503).send({ ready, checks: { amqp, mongodb } });
  });

  server.get("/metrics", async (_request, reply) =>
    reply.type(metrics.registry.contentType).send(await metrics.registry.metrics()),
  );
}
