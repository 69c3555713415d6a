/** How a program becomes an agent. */

import { Client } from "../core/client.js";
import { failure } from "../core/error.js";
import { known } from "../core/known.js";
import type { Logger } from "../core/transport.js";
import { find, type Where } from "./config.js";
import { nodePlatform } from "./platform.js";
import { NodeReplicas } from "./replicas.js";

export interface ConnectOptions extends Where {
  /** How long a call is tried again while no replica answers; 30 s unless said otherwise. Transfers count it from their last progress. */
  readonly retryForMs?: number;
  /** Connects to this address, such as that of a port-forward, rather than to those of the servers. The hub's certificate has to be for their names all the same. */
  readonly through?: string;
  /** Where the SDK says what it does by itself; warnings go to the console unless said otherwise. */
  readonly log?: Logger;
  /** Gives up connecting. */
  readonly signal?: AbortSignal;
}

const KNOWN: readonly (keyof ConnectOptions)[] = [
  ...(["server", "ca", "caFile", "systemRoots", "apiKey", "apiKeyFile", "tokenFile", "tokens", "profile"] as const),
  ...(["retryForMs", "through", "log", "signal"] as const),
];

/**
 * Connects to the hub, and authenticates. Where the hub is, and who speaks, is found in this order: the arguments, the environment (`ACB_SERVER`,
 * `ACB_CA_FILE`, and `ACB_API_KEY_FILE` or `ACB_TOKEN_FILE`), a profile of `acb login` (`ACB_PROFILE`, or the current one), the files that a pod mounts
 * at `/var/run/acb`.
 *
 * ```ts
 * await using agent = await connect();
 * await agent.send({ to: "worker-a", topic: "greeting", text: "hello" });
 * ```
 *
 * `await using` is of TypeScript 5.2 and Node 24; elsewhere `await agent.close()` ends it.
 */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  known("connect", options, KNOWN);
  const { retryForMs = 30_000, through, log, signal } = options;
  if (!(retryForMs >= 0)) throw failure("USAGE", `retryForMs is ${retryForMs}`);
  const { servers, ca, systemRoots, credential } = find(options);
  const replicas = new NodeReplicas(servers, { ca, systemRoots }, through);
  return await Client.connect({ replicas, credential, retryForMs, platform: nodePlatform(log) }, signal);
}
