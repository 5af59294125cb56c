import { spawn } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type { ChildProcesses } from "../../../src/worker/processes/child-processes.js";
import {
  childProcesses,
  GUARD_PROGRAM,
  guardsOf,
  heard,
  isAlive,
  until,
} from "../../support/children-under-test.js";

const node = (code: string) => ["node", "-e", code];
const sh = (code: string) => ["sh", "-c", code];

let children: ChildProcesses;
beforeAll(() => {
  children = childProcesses();
});
afterAll(() => children.stop());

describe("a child process", () => {
  it("is run without a shell, in its folder, with its arguments as they are", async () => {
    const said = heard({
      command: node("console.log(JSON.stringify(process.argv.slice(1)), process.cwd())"),
    });
    const command = { ...said.command, command: [...said.command.command, "$HOME", "a b", "; ls"] };
    await expect(children.run(command).ended).resolves.toMatchObject({ reason: "exited", code: 0 });
    expect(said.lines[0]?.text).toBe(`["$HOME","a b","; ls"] ${said.command.cwd}`);
  });

  it("sees nothing of the worker's environment but what is listed", async () => {
    process.env.WARREN_TEST_SECRET = "hush";
    process.env.AMQP_URL ??= "amqp://guest:guest@127.0.0.1";
    const said = heard({ command: ["env"], env: { GIVEN: "yes" } });
    await children.run(said.command).ended;
    const names = said.lines.map(({ text }) => text.split("=")[0]).sort();
    const inherited = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"].filter(
      (name) => name in process.env,
    );
    expect(names).toEqual([...inherited, "GIVEN", "WARREN_PROCESS_ID"].sort());
  });

  it.each([
    ["exit 0", { reason: "exited", code: 0, message: "exited with code 0" }],
    ["echo no >&2; exit 3", { reason: "exited", code: 3, stderrTail: ["no"] }],
    ["kill -SEGV $$", { reason: "killed", signal: "SIGSEGV", message: "was ended by SIGSEGV" }],
    ["exec 0<&- 1>&- 2>&-; sleep 0.05; exit 5", { reason: "exited", code: 5 }],
  ])("tells how it ended: %s", async (code, expected) => {
    await expect(children.run(heard({ command: sh(code) }).command).ended).resolves.toMatchObject(expected);
  });

  it.each([
    [["/no/such/program"], "ENOENT"],
    [["sh", "a\0b"], "null bytes"],
    [[import.meta.filename], "EACCES"],
  ])("that cannot be started has ended: %j", async (command, why) => {
    const result = await children.run(heard({ command }).command).ended;
    expect(result).toMatchObject({ reason: "not-started", code: null });
    expect(result.message).toContain(why);
  });

  it("is given what is written to it, as fast as it reads", async () => {
    const said = heard({ command: node("setTimeout(() => process.stdin.pipe(process.stdout), 50)") });
    const child = children.run(said.command);
    let waits = 0;
    for (let index = 0; index < 100; index += 1) {
      const wait = child.write(`${index} ${"x".repeat(10_000)}\n`);
      if (wait !== undefined) waits += 1;
      await wait;
    }
    child.closeInput();
    await child.ended;
    expect(said.lines.map(({ text }) => Number(text.split(" ")[0]))).toEqual([...Array(100).keys()]);
    expect(waits).toBeGreaterThan(0);
  });

  it("does not get far ahead of who reads its output", async () => {
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    let count = 0;
    const said = heard({
      command: node(`
        let written = 0;
        const more = () => { while (process.stdout.write("x".repeat(99) + "\\n")) if ((written += 1) > 1e6) return;
          process.stdout.once("drain", more); };
        setInterval(() => process.stderr.write(written + "\\n"), 20);
        more();`),
      onLine: (stream, line) => {
        if (stream === "stdout") count += 1;
        else stalled.push(Number(line.text));
        return stream === "stdout" ? held : undefined;
      },
    });
    const stalled: number[] = [];
    const child = children.run(said.command);
    await until("it has to wait", () => stalled.length > 3 && stalled.at(-1) === stalled.at(-3));
    expect(count).toBe(1);
    expect(stalled.at(-1)).toBeLessThan(5_000);
    release();
    await child.kill();
  });

  it("hears of an endless line only its beginning", async () => {
    const said = heard({
      command: node("process.stdout.write('y'.repeat(3e6)); process.stdout.write('\\nshort')"),
      limits: { maxLineBytes: 1_000 },
    });
    await children.run(said.command).ended;
    expect(said.lines.map(({ text, isCut }) => [text.length, isCut])).toEqual([
      [1_000, true],
      [5, false],
    ]);
  });

  it("that takes more memory than it may is ended, together with what it started", async () => {
    const said = heard({
      command: node(`
        const { spawn } = require("node:child_process");
        spawn(process.execPath, ["-e", "const kept = []; setInterval(() => kept.push(Buffer.alloc(1e7, 1)), 5)"],
          { stdio: "inherit" });
        setInterval(() => {}, 1000)`),
      limits: { memoryBytes: 200_000_000 },
    });
    const result = await children.run(said.command).ended;
    expect(result.reason).toBe("memory");
    expect(result.message).toMatch(/^took \d+ MiB of memory, more than 191 MiB$/);
  });

  it("that runs for too long is asked to end, and then made to", async () => {
    const said = heard({
      command: sh("trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done"),
      limits: { runTimeoutMs: 300, graceMs: 200 },
    });
    const result = await children.run(said.command).ended;
    expect(result).toMatchObject({
      reason: "timeout",
      signal: "SIGKILL",
      message: "did not end within 300 ms",
    });
    expect(said.lines.map(({ text }) => text)).toContain("no");
  });

  it("may end by itself when its input is closed, or when it is asked to", async () => {
    const polite = children.run(heard({ command: sh("cat; exit 7") }).command);
    await expect(polite.end({ politeMs: 10_000 })).resolves.toMatchObject({ reason: "ended", code: 7 });
    const said = heard({ command: sh("trap 'exit 8' TERM; echo ready; while :; do sleep 0.01; done") });
    const asked = children.run(said.command);
    await said.line((text) => text === "ready");
    await expect(asked.end({ graceMs: 10_000 })).resolves.toMatchObject({ reason: "ended", code: 8 });
  });
});

describe("nothing is left of a child process", () => {
  const grandchildren: readonly (readonly [string, string])[] = [
    ["in its group", "sleep 1000 & echo $!"],
    ["that ignores signals", "(trap '' TERM HUP INT; sleep 1000) & echo $!"],
    ["with an environment of its own", "env -i /bin/sleep 1000 & echo $!"],
    ...(process.platform === "linux"
      ? ([["that has left its group", "setsid sh -c 'echo $$; exec sleep 1000' & sleep 0.3"]] as const)
      : []),
  ];

  it.each(grandchildren)("that exits: a grandchild %s", async (_, code) => {
    const said = heard({ command: sh(code) });
    const result = await children.run(said.command).ended;
    expect(result).toMatchObject({ reason: "exited", code: 0 });
    expect(isAlive(Number(said.lines[0]?.text))).toBe(false);
  });

  it.each(grandchildren)("that is ended: a grandchild %s", async (_, code) => {
    const said = heard({ command: sh(`${code}; sleep 1000`) });
    const child = children.run(said.command);
    const grandchild = Number(await said.line((text) => /^\d+$/.test(text)));
    await child.kill();
    expect([child.pid ?? 0, grandchild].filter(isAlive)).toEqual([]);
  });

  it.each(grandchildren)("whose worker is killed: a grandchild %s", async (_, code) => {
    const worker = await startWorker(code);
    worker.kill("SIGKILL");
    await until("none of them lives", () => !worker.pids.some(isAlive));
  });

  it.skipIf(process.platform !== "linux")("whose worker is killed after it lost its guard", async () => {
    const worker = await startWorker("sleep 1000 & echo $!");
    const guards = guardsOf(worker.pid ?? 0);
    expect(guards).toHaveLength(1);
    process.kill(guards[0] ?? 0, "SIGKILL");
    await until("there is another guard", () =>
      guardsOf(worker.pid ?? 0).some((guard) => guard !== guards[0]),
    );
    worker.kill("SIGKILL");
    await until("none of them lives", () => !worker.pids.some(isAlive));
  });
});

/** Starts a child as a worker does, and says its process id and those that it says itself. */
const WORKER = `
  import { ChildProcesses } from ${JSON.stringify(new URL("./child-processes.js", GUARD_PROGRAM).href)};
  import { systemClock } from ${JSON.stringify(new URL("../../lib/clock.js", GUARD_PROGRAM).href)};
  const logger = { error() {}, warn() {} };
  const child = new ChildProcesses({ clock: systemClock, logger }).run({
    command: ["sh", "-c", process.argv[1] + "; sleep 1000"],
    cwd: "/",
    onLine: (_, { text }) => console.log(text),
  });
  console.log(child.pid);
  setInterval(() => {}, 1000);
`;

/** @returns once a child and what that has started run */
async function startWorker(code: string) {
  const worker = spawn(process.execPath, ["--input-type=module", "-e", WORKER, code], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void worker.kill("SIGKILL"));
  const pids: number[] = [];
  worker.stdout.on("data", (chunk: Buffer) => pids.push(...String(chunk).trim().split("\n").map(Number)));
  await until("it has said their ids", () => pids.length >= 2);
  expect(pids.filter(isAlive)).toEqual(pids);
  return Object.assign(worker, { pids });
}
