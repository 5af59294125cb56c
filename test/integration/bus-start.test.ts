import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Clock, systemClock } from "../../src/lib/clock.js";
import { ConfigError } from "../../src/lib/errors.js";
import { amqpUrl, BusUnderTest, until } from "../support/bus-under-test.js";
import { TcpProxy } from "../support/tcp-proxy.js";

function changed(change: (url: URL) => void): string {
  const url = new URL(amqpUrl());
  change(url);
  return url.href;
}

describe("starting the bus", () => {
  let under: BusUnderTest;
  beforeEach(async () => {
    under = new BusUnderTest();
  });
  afterEach(async () => {
    // There must be something for it to remove.
    await under.started();
    await under.dispose();
  });

  it.each([
    [
      "a wrong password",
      () =>
        changed((url) => {
          url.password = "wrong";
        }),
      /refused the user or password/,
    ],
    [
      "a user that is not known",
      () =>
        changed((url) => {
          url.username = "nobody";
        }),
      /refused the user or password/,
    ],
    [
      "a virtual host that is not there",
      () =>
        changed((url) => {
          url.pathname = "/nowhere";
        }),
      /no such virtual host/,
    ],
    ["something that is no URL", () => "localhost", /is not an amqp:\/\/ or amqps:\/\/ URL/],
    ["a URL of something else", () => "http://localhost/", /is not an amqp:\/\/ or amqps:\/\/ URL/],
    ["a port out of range", () => "amqp://localhost:99999/", /is not an amqp:\/\/ or amqps:\/\/ URL/],
  ])("fails at once with %s, and shows no password", async (_, url, message) => {
    const bus = under.bus({ urls: [url()] });
    const error = await bus.start().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({ message: expect.stringMatching(message) });
    expect(String(error)).not.toMatch(/:wrong@|:guest@/);
    expect(bus.connected).toBe(false);
  });

  it("fails at once when any of its URLs is none, though the first would do", async () => {
    await expect(under.bus({ urls: [amqpUrl(), "nonsense"] }).start()).rejects.toThrow(ConfigError);
    await expect(under.bus({ urls: [] }).start()).rejects.toThrow(ConfigError);
  });

  it.each([
    [{ maxTasks: 7 }, "WARREN_MAX_TASKS", "x-max-length", () => under.names.tasks()],
    [{ deliveryLimit: 7 }, "WARREN_DELIVERY_LIMIT", "x-delivery-limit", () => under.names.tasks()],
    [{ maxDeadLetters: 7 }, "WARREN_MAX_DEAD_LETTERS", "x-max-length", () => under.names.dead()],
  ])(
    "fails at once when a queue is there with other than %o, and names the setting",
    async (topology, setting, argument, queue) => {
      await under.started();
      const error = await under
        .bus({ topology })
        .start()
        .catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(ConfigError);
      for (const part of [setting, argument, queue()]) expect(String(error)).toContain(part);
    },
  );

  it("fails at once when a queue is there that is none of Warren's, and names it", async () => {
    const channel = await under.stranger();
    await channel.assertQueue(under.names.tasks(), { durable: true });
    const error = await under
      .bus()
      .start()
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConfigError);
    expect(String(error)).toContain(under.names.tasks());
    // So that there is everything to be removed in the end.
    await channel.deleteQueue(under.names.tasks());
    await under.started();
  });

  it("waits for a broker that is away", async () => {
    const proxy = await under.proxy();
    const { url } = proxy;
    await proxy.close();
    const bus = under.bus({ urls: [url] });
    let isStarted = false;
    const started = bus.start().then(() => {
      isStarted = true;
    });
    await proxy.open();
    expect(isStarted).toBe(false);
    await started;
    expect(bus.connected).toBe(true);
  });

  it("goes to the next URL when the first does not answer, and back again", async () => {
    const [first, second] = [await under.proxy(), await under.proxy()];
    await first.close();
    const bus = await under.started({ urls: [first.url, second.url] });
    expect(second.connections).toBe(2);
    await first.open();
    await second.close();
    await until("the loss was noticed", () => !bus.connected);
    await until("it is up again", () => bus.connected);
    expect(first.connections).toBe(2);
  });

  it("waits longer and longer for a broker that takes connections only to drop them", async () => {
    const proxy = await under.proxy();
    const waits: number[] = [];
    const clock: Clock = {
      ...systemClock,
      after: (delayMs, fire) => {
        waits.push(delayMs);
        return systemClock.after(delayMs, fire);
      },
    };
    const reconnect = { minMs: 7, maxMs: 50 };
    const bus = await under.started({ urls: [proxy.url], reconnect }, { clock, random: () => 1 });
    for (const longer of [14, 28, 50, 50]) {
      waits.length = 0;
      proxy.cut();
      await until("the loss was noticed", () => !bus.connected);
      await until("it is up again", () => bus.connected);
      expect(waits).toContain(longer);
    }
  });

  it("tells when it can be used again: what is sent then reaches who listened before", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    const heard: string[] = [];
    await bus.events.subscribe(["#"], (events) => heard.push(...events.map(({ type }) => type)));
    let times = 0;
    bus.onReconnect(() => {
      throw new Error("a listener's fault");
    });
    const leave = bus.onReconnect(() => {
      times += 1;
      bus.events.publish("node.online", [{ type: "node.online", at: new Date().toISOString(), data: {} }]);
    });
    // Both connections are lost at once; the bus comes back once.
    proxy.cut();
    await until("the event was heard", () => heard.length > 0);
    expect(times).toBe(1);
    leave();
    proxy.cut();
    await until("the loss was noticed", () => !bus.connected);
    await until("it is up again", () => bus.connected);
    expect(times).toBe(1);
  });

  it("gives up on a broker that takes connections and says nothing, and tries the next", async () => {
    const mute = await under.proxy();
    mute.freeze();
    const bus = await under.started({ urls: [mute.url, amqpUrl()], connectTimeoutMs: 50 });
    expect(bus.connected).toBe(true);
  });

  it.each([
    ["its option", "", 1],
    ["its URL, which goes first", "?frameMax=8192&heartbeat=1", 600],
  ])("notices a broker that falls silent by the heartbeat of %s", async (_, search, heartbeatSeconds) => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url + search], heartbeatSeconds });
    proxy.freeze();
    await until("the silence was noticed", () => !bus.connected);
    proxy.thaw();
    await until("it is up again", () => bus.connected);
  });

  it("ends at once when it is stopped while nothing answers, and its start fails", async () => {
    const proxy = await under.proxy();
    const { url } = proxy;
    proxy.freeze();
    const mute = under.bus({ urls: [url], connectTimeoutMs: 600_000 });
    const starting = mute.start();
    await until("it tries to connect", () => proxy.connections > 0);
    await Promise.all([mute.stop(), expect(starting).rejects.toMatchObject({ code: "BUS_STOPPED" })]);
    proxy.thaw();
    await until("its sockets are closed", () => proxy.connections === 0);
    await proxy.close();
    const refused = under.bus({ urls: [url], reconnect: { minMs: 600_000, maxMs: 600_000 } });
    const waiting = refused.start();
    await Promise.all([refused.stop(), expect(waiting).rejects.toMatchObject({ code: "BUS_STOPPED" })]);
  });

  it("can be stopped at any moment of its start", async () => {
    for (let steps = 0; steps < 60; steps += 3) {
      const bus = under.bus();
      const starting = bus.start().catch((error: unknown) => error);
      for (let step = 0; step < steps; step += 1) await new Promise((resolve) => setImmediate(resolve));
      await bus.stop();
      const outcome = await starting;
      if (outcome !== undefined) expect(outcome).toMatchObject({ code: "BUS_STOPPED" });
      expect(bus.connected).toBe(false);
    }
  });

  it("can be stopped before it was started, and twice", async () => {
    const bus = under.bus();
    await bus.stop();
    await bus.stop();
    const other = await under.started();
    await Promise.all([other.stop(), other.stop()]);
    // Whoever still wants something of it is told, rather than left waiting.
    await other.events.subscribe(["#"], () => {});
    await expect(other.calls.callMaster("ping")).rejects.toMatchObject({ code: "unavailable" });
  });

  it("stops though the broker is frozen", async () => {
    const proxy = await new TcpProxy(amqpUrl()).open();
    const bus = await under.started({ urls: [proxy.url] });
    proxy.freeze();
    await bus.stop();
    expect(bus.connected).toBe(false);
    await proxy.close();
  });

  it("stops when the connection is lost at the same time", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    proxy.freeze();
    const stopped = bus.stop();
    proxy.cut();
    await stopped;
    expect(bus.connected).toBe(false);
  });

  it("is not kept from stopping by something that is no broker", async () => {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.end("HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const port = typeof address === "object" ? address?.port : undefined;
    const bus = under.bus({ urls: [`amqp://127.0.0.1:${port}`] });
    const starting = bus.start();
    await bus.stop();
    await expect(starting).rejects.toMatchObject({ code: "BUS_STOPPED" });
    await new Promise((resolve) => server.close(resolve));
  });
});
