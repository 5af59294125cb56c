import { afterAll, beforeAll, expect, it } from "vitest";
import { api, Cluster, type Master, until } from "../support/cluster.js";
import { MailServerUnderTest } from "../support/mail-server-under-test.js";
import { PageServer } from "../support/page-server.js";

let cluster: Cluster;
let masters: readonly Master[];
const site = new PageServer();
const mails = new MailServerUnderTest();

beforeAll(async () => {
  await site.start();
  await mails.start();
  site.serve("/", "<title>one page</title>");
  cluster = new Cluster({
    environment: { WARREN_SMTP_URL: mails.url, WARREN_SMTP_FROM: "Warren <warren@crawler.test>" },
  });
  [masters] = await Promise.all([
    Promise.all([cluster.master(), cluster.master()]),
    cluster.worker("worker-1"),
  ]);
});

afterAll(async () => {
  await cluster?.stop();
  await mails.stop();
  await site.stop();
});

type Run = { readonly tick: string; readonly state: string; readonly crawl: string; readonly after: string };

it("masters make a crawl at each tick, one that follows, and tell of its end by mail", async () => {
  const [one, other] = masters.map(api);
  if (one === undefined || other === undefined) throw new Error("there are two masters");
  const make = async (route: string, members: unknown): Promise<string> => {
    const { status, body } = await one.call("POST", `/api/v1/${route}`, members);
    if (status !== 201) throw new Error(`${route} answered ${status}: ${JSON.stringify(body)}`);
    return (body as { id: string }).id;
  };
  const crawl = { seeds: [site.url("/")], politeness: { obeyRobots: false } };
  const leader = await make("schedules", {
    name: "each second",
    cron: "* * * * * *",
    overlap: "queue",
    crawl,
  });
  const follower = await make("schedules", {
    ...{ after: { schedule: leader }, overlap: "queue", maxQueued: 100, crawl },
  });
  await make("notification-rules", {
    ...{ on: "crawl.finished", filter: { schedule: follower } },
    channels: [{ kind: "email", to: ["ops@example.com"] }],
  });
  const runs = async (schedule: string) =>
    (await other.list(`/api/v1/schedules/${schedule}/runs?state=started`)) as unknown as readonly Run[];
  await until("two crawls have been followed", async () => (await runs(follower)).length >= 2);
  await other.call("POST", `/api/v1/schedules/${leader}/pause`);
  await until("a mail has come", async () => mails.received.length > 0);

  const led = await runs(leader);
  expect(new Set(led.map((run) => run.crawl)).size).toBe(led.length);
  const followed = await runs(follower);
  expect(new Set(followed.map((run) => run.after)).size).toBe(followed.length);
  expect(led.map((run) => run.crawl)).toEqual(expect.arrayContaining(followed.map((run) => run.after)));
  const [mail] = mails.received;
  expect(mail).toMatchObject({ from: "warren@crawler.test", to: ["ops@example.com"] });
  expect(mail?.text).toMatch(/^Subject: \[Warren\] Crawl \S+ has finished/m);
  expect(await one.list("/api/v1/notifications")).not.toEqual([]);
});
