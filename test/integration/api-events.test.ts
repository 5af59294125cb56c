import { once } from "node:events";
import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ApiMaster, listen, startApiMaster } from "./api-master.js";

let one: ApiMaster;
let other: ApiMaster;

beforeAll(async () => {
  one = await startApiMaster("api_events");
  other = await startApiMaster("api_events", { namespace: one.namespace });
});

afterAll(async () => {
  await other.dispose();
  await one.dispose();
});

describe("GET /events", () => {
  it("tells of a crawl's life, whichever master it went through", async () => {
    const { body: crawl } = await one.post("/api/v1/crawls", { seeds: ["http://a.test/"] });
    const stream = await listen(other, `?crawl=${crawl.id}&type=crawl.*`);
    expect(stream.response.headers.get("content-type")).toContain("text/event-stream");

    await one.post("/api/v1/crawls", { seeds: ["http://b.test/"] });
    for (const change of ["pause", "resume", "close"])
      await one.send("POST", `/api/v1/crawls/${crawl.id}/${change}`);

    const types = [await stream.next(), await stream.next(), await stream.next()].map(({ event }) => [
      event.type,
      event.crawl,
    ]);
    stream.stop();
    expect(types).toEqual([
      ["crawl.paused", crawl.id],
      ["crawl.resumed", crawl.id],
      ["crawl.closed", crawl.id],
    ]);
  });

  it("tells dispatchers of the hosts that got URLs", async () => {
    const stream = await listen(one, "?type=frontier.added");

    const { body: crawl } = await other.post("/api/v1/crawls", {
      seeds: ["http://x.test/1", "http://x.test/2", "http://y.test/"],
    });

    const { event } = await stream.next();
    stream.stop();
    expect(event).toMatchObject({ type: "frontier.added", crawl: crawl.id });
    expect([...(event.data.hosts as string[])].sort()).toEqual(["x.test", "y.test"]);
  });

  it("sends a client that comes back what it missed", async () => {
    const { body: crawl } = await one.post("/api/v1/crawls", { seeds: ["http://a.test/"] });
    const first = await listen(one, `?crawl=${crawl.id}&type=crawl.paused,crawl.resumed`);
    await one.send("POST", `/api/v1/crawls/${crawl.id}/pause`);
    const { id } = await first.next();
    first.stop();
    const witness = await listen(one, `?crawl=${crawl.id}&type=crawl.resumed`);
    await one.send("POST", `/api/v1/crawls/${crawl.id}/resume`);
    await witness.next();
    witness.stop();

    const second = await listen(one, `?crawl=${crawl.id}&type=crawl.paused,crawl.resumed`, {
      "last-event-id": id,
    });

    expect((await second.next()).event.type).toBe("crawl.resumed");
    second.stop();
  });

  it("drops a client that does not read, and no other", async () => {
    expect(await one.until(() => one.api.eventClients === 0)).toBe(true);
    const socket = connect(Number(new URL(one.url).port), "127.0.0.1");
    await once(socket, "connect");
    socket.write("GET /api/v1/events?type=notification.* HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    socket.pause();
    const reader = await listen(one, "?type=notification.*");
    expect(await one.until(() => one.api.eventClients === 2)).toBe(true);

    let seen = 0;
    for (; one.api.eventClients > 1 && seen < 1_000; seen += 1) {
      one.publish("notification.info", { text: "x".repeat(100_000), number: seen });
      expect((await reader.next()).event.data.number).toBe(seen);
    }

    expect(one.api.eventClients).toBe(1);
    reader.stop();
    socket.destroy();
  });
});
