/** What of Node the rest needs beside connections. */

import { AsyncLocalStorage } from "node:async_hooks";
import { createHash } from "node:crypto";

import type { Hasher, Logger, Platform } from "../core/transport.js";
import { keepWorkIn, type Work } from "../core/work.js";

keepWorkIn(new AsyncLocalStorage<Work>());

function sha256(): Hasher {
  const hash = createHash("sha256");
  return { update: (data) => void hash.update(data), digest: () => hash.copy().digest() };
}

/** Says what people have to know, and nothing that goes right. */
const WARNINGS: Logger = {
  debug: () => undefined,
  warn: (message, facts) => console.warn(`acb: ${message}`, facts ?? ""),
  error: (message, facts) => console.error(`acb: ${message}`, facts ?? ""),
};

export function nodePlatform(log: Logger = WARNINGS): Platform {
  return { sha256, log };
}
