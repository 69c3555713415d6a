/** Starts a hub with two replicas for all live tests: `acb dev` on resources.yaml, in a folder of its own. */

import { type ChildProcess, spawn } from "node:child_process";
import { chmod, cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { TestProject } from "vitest/node";

export interface Hub {
  readonly servers: string[];
  readonly caFile: string;
  /** By the agent's name. */
  readonly apiKeyFiles: Record<string, string>;
  /** What `acb login` keeps. */
  readonly config: string;
}

declare module "vitest" {
  interface ProvidedContext {
    hub: Hub;
  }
}

const READY_WITHIN = 60_000;

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const program = process.env["ACB_BIN"] ?? new URL("../../../../target/debug/acb", import.meta.url).pathname;
  const folder = await mkdtemp(join(tmpdir(), "acb-typescript-"));
  // Run by root, PostgreSQL is another user, who has to enter it.
  await chmod(folder, 0o755);
  const resources = join(folder, "resources");
  await cp(new URL("resources.yaml", import.meta.url).pathname, join(resources, "resources.yaml"));
  const [ready, config] = [join(folder, "ready.json"), join(folder, "config.yaml")];
  const args = ["dev", "--file", resources, "--state", join(folder, "state"), "--ready-file", ready, "--login"];
  const acb = spawn(program, args, { env: { ...process.env, ACB_CONFIG: config }, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  acb.stdout?.on("data", (text) => (said += text));
  acb.stderr?.on("data", (text) => (said += text));
  const ended = new Promise<void>((resolve) => acb.on("close", () => resolve()));
  let failed: Error | undefined;
  acb.on("error", (error) => (failed = error));
  const stop = async () => {
    await end(acb, ended);
    await rm(folder, { recursive: true, force: true });
  };
  const until = Date.now() + READY_WITHIN;
  for (;;) {
    try {
      const { acme } = JSON.parse(await readFile(ready, "utf8"));
      if (acme !== undefined) {
        project.provide("hub", { servers: acme.server.split(","), caFile: acme.caFile, apiKeyFiles: acme.apiKeyFiles, config });
        return stop;
      }
    } catch {
      // Not yet.
    }
    if (failed !== undefined || acb.exitCode !== null || Date.now() > until) {
      await stop();
      throw new Error(`${program} dev has no hub ready: build it, or set ACB_BIN. ${failed?.message ?? said}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function end(acb: ChildProcess, ended: Promise<void>): Promise<void> {
  if (acb.pid === undefined) return;
  acb.kill("SIGTERM");
  // A second one ends hubs at once.
  const impatient = setTimeout(() => acb.kill("SIGTERM"), 10_000);
  await ended;
  clearTimeout(impatient);
}
