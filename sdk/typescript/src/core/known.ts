/** What callers in plain JavaScript can misspell. */

import { failure } from "./error.js";

/** Refuses a key that nobody would look at. */
export function known(what: string, given: object, keys: readonly string[]): void {
  if (typeof given !== "object" || given === null) throw failure("USAGE", `${what} is an object with some of ${keys.join(", ")}`);
  const stranger = Object.keys(given).find((key) => !keys.includes(key));
  if (stranger === undefined) return;
  throw failure("USAGE", `${what} has no ${JSON.stringify(stranger)}: ${hint(stranger, keys)}`);
}

function hint(stranger: string, keys: readonly string[]): string {
  if (stranger === "payload" && keys.includes("json")) return "give the payload as json, text or bytes";
  const plain = (key: string) => key.toLowerCase().replace(/[^a-z0-9]/g, "");
  const [wanted, near] = [plain(stranger), (key: string) => plain(key)];
  const alike = keys.find((key) => wanted.length > 1 && (near(key).startsWith(wanted) || wanted.startsWith(near(key))));
  return alike === undefined ? `it can have ${keys.join(", ")}` : `is ${JSON.stringify(alike)} meant?`;
}
