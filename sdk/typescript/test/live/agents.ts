/** How live tests become agents, and how they have connections break. */

import { createServer, type Server, type Socket, connect as dial } from "node:net";
import { type AddressInfo } from "node:net";

import { inject, onTestFinished } from "vitest";

import { type Client, connect, type ConnectOptions, type Logger, type Received } from "../../src/index.js";

export const QUIET: Logger = { debug: () => undefined, warn: () => undefined, error: () => undefined };

/** An agent that ends with its test. */
export async function become(name: string, options: ConnectOptions = {}): Promise<Client> {
  const { servers, caFile, apiKeyFiles } = inject("hub");
  const apiKeyFile = apiKeyFiles[name];
  if (apiKeyFile === undefined) throw new Error(`resources.yaml has no agent ${name}`);
  const agent = await connect({ server: servers, caFile, apiKeyFile, log: QUIET, ...options });
  onTestFinished(() => agent.close());
  return agent;
}

/** Stands between an agent and a replica. */
export class Proxy {
  readonly #server: Server;
  readonly #silent = new Set<Socket>();
  readonly #pairs = new Set<[Socket, Socket]>();
  /** How many bytes of one direction pass before the connection is cut; each cut needs to be asked for. */
  #cutAfter = Infinity;
  #isMute = false;
  /** How many connections were there. */
  connections = 0;

  private constructor(target: URL) {
    this.#server = createServer((near) => {
      this.connections += 1;
      if (this.#isMute) {
        this.#silent.add(near.on("error", () => undefined));
        return;
      }
      const far = dial(Number(target.port), target.hostname);
      const pair: [Socket, Socket] = [near, far];
      this.#pairs.add(pair);
      const close = () => {
        near.destroy();
        far.destroy();
        this.#pairs.delete(pair);
      };
      for (const [from, to] of [pair, [far, near] as [Socket, Socket]]) {
        from.on("error", close).on("close", close);
        from.on("data", (data) => {
          this.#cutAfter -= data.length;
          if (this.#cutAfter <= 0) {
            this.#cutAfter = Infinity;
            this.cut();
          } else {
            to.write(data);
          }
        });
      }
    });
  }

  static async before(server: string): Promise<Proxy> {
    const proxy = new Proxy(new URL(server));
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => proxy.close());
    return proxy;
  }

  get url(): string {
    return `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Cuts what is open now. */
  cut(): void {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }

  cutAfter(bytes: number): void {
    this.#cutAfter = bytes;
  }

  /** Has what is open be silent without an end. */
  stall(): void {
    for (const pair of this.#pairs) for (const socket of pair) socket.pause().removeAllListeners("data");
  }

  /** From now on nothing passes: what is open is silent, and what comes is taken and hears nothing. */
  mute(): void {
    this.#isMute = true;
    this.stall();
  }

  /** It passes again: who waits has to connect anew. */
  unmute(): void {
    this.#isMute = false;
    this.cut();
    for (const socket of this.#silent) socket.destroy();
    this.#silent.clear();
  }

  async close(): Promise<void> {
    this.cut();
    for (const socket of this.#silent) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

/** Both replicas, each behind a proxy. */
export async function proxies(): Promise<Proxy[]> {
  return await Promise.all(inject("hub").servers.map((server) => Proxy.before(server)));
}

/** Waits until it is so; fails where it never is. */
export async function eventually(what: string, holds: () => boolean | Promise<boolean>, withinMs = 15_000): Promise<void> {
  const until = Date.now() + withinMs;
  while (!(await holds())) {
    if (Date.now() > until) throw new Error(`in ${withinMs / 1000} s it was never so: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export async function collect<T>(items: AsyncIterable<T>, most = Infinity): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) {
    all.push(item);
    if (all.length >= most) break;
  }
  return all;
}

/** Receives so many messages, and acknowledges each. */
export async function take<T = unknown>(agent: Client, count: number): Promise<Received<T>[]> {
  const all: Received<T>[] = [];
  for await (const message of agent.messages<T>()) {
    all.push(message);
    message.ack();
    if (all.length >= count) break;
  }
  return all;
}

/** What is left of other tests is none of this one. */
export async function empty(name: string): Promise<void> {
  const agent = await become(name);
  const puller = agent.puller();
  for (;;) {
    const pulled = await puller.pull({ maxMessages: 1_000, withinMs: 0 });
    if (pulled.length === 0) break;
    await puller.acknowledge(pulled);
  }
  await agent.close();
}
