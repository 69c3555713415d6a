/** What the README and examples/typescript say is run as it is written. */

import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { beforeAll, expect, inject, it, onTestFinished } from "vitest";

import { become, collect, empty, eventually } from "./agents.js";

const here = new URL("../../", import.meta.url).pathname;
/** Inside of the package, which so finds itself by its name. */
const made = join(here, ".examples");

beforeAll(() => {
  rmSync(made, { recursive: true, force: true });
  const tsc = join(here, "node_modules", ".bin", "tsc");
  // The package itself was built before: see scripts/test-typescript.
  execFileSync(tsc, ["--project", join(here, "../../examples/typescript/tsconfig.json")]);
  mkdirSync(made, { recursive: true });
  const readme = /```js\n([\s\S]+?)```/.exec(readFileSync(join(here, "README.md"), "utf8"));
  writeFileSync(join(made, "readme.mjs"), readme?.[1] ?? "");
}, 120_000);

interface Program {
  said(): string;
  end(): void;
  readonly ended: Promise<number | null>;
}

function run(program: string, profile: string, ...args: string[]): Program {
  const env = { ...process.env, ACB_CONFIG: inject("hub").config, ACB_PROFILE: profile };
  const child = spawn(process.execPath, [join(made, program), ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stdout.on("data", (text) => (said += text));
  child.stderr.on("data", (text) => (said += text));
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  onTestFinished(async () => {
    if (child.exitCode === null) child.kill("SIGKILL");
    await ended;
  });
  return { said: () => said, end: () => void child.kill("SIGTERM"), ended };
}

it("the README's lines", async () => {
  await empty("worker-a");
  const program = run("readme.mjs", "");
  expect([await program.ended, program.said()]).toEqual([0, "supervisor says { hello: 'world' }\n"]);
});

it("hello world", async () => {
  await empty("worker-b");
  const receiver = run("hello.js", "acme/worker-b");
  const sender = run("hello.js", "acme/supervisor", "worker-b");
  expect([await sender.ended, await receiver.ended]).toEqual([0, 0]);
  expect(sender.said()).toMatch(/^sent [0-9a-f-]{36}\n$/);
  expect(receiver.said()).toContain("supervisor says hello");
});

it("streaming with progress", async () => {
  const folder = mkdtempSync(join(tmpdir(), "acb-example-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const [from, to] = [join(folder, "from"), join(folder, "to")];
  writeFileSync(from, Buffer.alloc(3_000_000, "ACB"));
  const program = run("streaming.js", "acme/supervisor", from, to);
  expect([await program.ended, program.said().split("\n").at(-2)]).toEqual([0, "3000000 bytes are back"]);
  expect(program.said()).toContain("stored 3000000 of 3000000 bytes\n");
  expect(Buffer.compare(readFileSync(from), readFileSync(to))).toBe(0);
});

it("supervisor and workers", async () => {
  await Promise.all(["worker-a", "worker-b"].map(empty));
  const workers = ["acme/worker-a", "acme/worker-b"].map((profile) => run("worker.js", profile));
  const observer = await become("boss");
  await eventually("both are online", async () => {
    const found = await collect(observer.discover({ capabilities: ["summarize"] }));
    return found.filter(({ status }) => status === "online").length === 2;
  });
  const supervisor = run("supervisor.js", "acme/supervisor", join(here, "README.md"), join(here, "package.json"), join(here, "tsconfig.json"));
  expect(await supervisor.ended, supervisor.said()).toBe(0);
  expect(supervisor.said()).toMatch(/worker-a {2}README.md {2}\d+ words[\s\S]*\n3 documents, \d+ words\n$/);
  for (const worker of workers) worker.end();
  expect(await Promise.all(workers.map((worker) => worker.ended))).toEqual([0, 0]);
});
