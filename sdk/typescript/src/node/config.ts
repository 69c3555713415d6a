/** Where an agent's program finds its hub: docs/sdk-config.md is this file's rule in words. */

import { closeSync, existsSync, openSync, readSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";

import { ApiKey, type Credential, type Tokens } from "../core/credential.js";
import { failure } from "../core/error.js";
import { type Environment, type Profile, Profiles } from "./profile.js";

/** What docs/authentication.md has a pod mount. */
const POD = "/var/run/acb";
/** More than any certificate or key. */
const MOST_OF_FILE = 1 << 20;
/** More than a hub looks at. */
const MOST_OF_TOKEN = 64 * 1024;

/** Where the hub is, and who speaks. What is left out comes from the environment, from a profile of `acb login`, or in a pod from the mounted files. */
export interface Where {
  /** The replicas of the hub, as `https://host:port`; one text may hold several, with commas. */
  readonly server?: string | readonly string[];
  /** The tenant's CA, as PEM. No other CA is trusted. */
  readonly ca?: string;
  /** The file of it. */
  readonly caFile?: string;
  /** Trusts the CAs that Node has with it as well, for a hub behind a public certificate. */
  readonly systemRoots?: boolean;
  /** An API key. */
  readonly apiKey?: string | ApiKey;
  /** The file of it. */
  readonly apiKeyFile?: string;
  /** The token of the pod's ServiceAccount: the file of a projected volume. It is read each time that a token is needed, since the kubelet replaces it. */
  readonly tokenFile?: string;
  /** Tokens that were exchanged elsewhere. The refresh token is used up. */
  readonly tokens?: Tokens;
  /** The name of a profile of `acb login`. Beside it nothing else of these can be given. */
  readonly profile?: string;
}

export interface Config {
  readonly servers: readonly string[];
  readonly ca: string;
  readonly systemRoots: boolean;
  readonly credential: Credential;
}

/** What the arguments say, then the environment, then the profile, then the pod. */
export function find(where: Where, environment: Environment = process.env, pod: string = POD): Config {
  const given = (name: string) => environment[name] || undefined;
  if (where.profile !== undefined) {
    const { server, ca, caFile, apiKey, apiKeyFile, tokenFile, tokens } = where;
    if ([server, ca, caFile, apiKey, apiKeyFile, tokenFile, tokens].some((one) => one !== undefined)) {
      throw failure("USAGE", "a profile says the hub and the credential: give nothing of them beside it");
    }
    return ofProfile(Profiles.load(environment).choose(where.profile), where);
  }
  const server = where.server ?? given("ACB_SERVER");
  const ca = caOf(where, given("ACB_CA_FILE"));
  const credential = credentialOf(where, given);
  if (server === undefined && ca === undefined && credential === undefined) {
    const profiles = Profiles.load(environment);
    const name = given("ACB_PROFILE") ?? profiles.current;
    if (name !== "") return ofProfile(profiles.choose(name), where);
  }
  return completed(where, server, ca, credential, pod);
}

function caOf(where: Where, file: string | undefined): string | undefined {
  oneOf({ ca: where.ca, caFile: where.caFile });
  if (where.ca !== undefined) return where.ca;
  const path = where.caFile ?? file;
  return path === undefined ? undefined : read(path, "the CA");
}

function credentialOf(where: Where, given: (name: string) => string | undefined): Credential | undefined {
  const { apiKey, tokens } = where;
  let { apiKeyFile, tokenFile } = where;
  oneOf({ apiKey, apiKeyFile, tokenFile, tokens });
  if (tokens !== undefined) return { kind: "tokens", tokens };
  if (apiKey !== undefined) return { kind: "apiKey", key: typeof apiKey === "string" ? ApiKey.parse(apiKey) : apiKey };
  if (apiKeyFile === undefined && tokenFile === undefined) {
    apiKeyFile = given("ACB_API_KEY_FILE");
    tokenFile = given("ACB_TOKEN_FILE");
    oneOf({ ACB_API_KEY_FILE: apiKeyFile, ACB_TOKEN_FILE: tokenFile });
  }
  if (apiKeyFile !== undefined) return keyIn(apiKeyFile);
  return tokenFile === undefined ? undefined : tokenIn(tokenFile);
}

function ofProfile(profile: Profile, where: Where): Config {
  const { servers, ca, apiKey, tokenFile } = profile;
  const credential: Credential = tokenFile === "" ? { kind: "apiKey", key: ApiKey.parse(apiKey) } : tokenIn(tokenFile);
  return { servers, ca, systemRoots: where.systemRoots ?? false, credential };
}

/** What is missing comes from the files of the pod, where it has them. */
function completed(
  where: Where,
  server: Where["server"],
  ca: string | undefined,
  credential: Credential | undefined,
  pod: string,
): Config {
  const mounted = (name: string) => (existsSync(join(pod, name)) ? join(pod, name) : undefined);
  const [serverFile, caFile, tokenFile, keyFile] = [mounted("server"), mounted("ca.crt"), mounted("token"), mounted("api-key")];
  if (server === undefined && serverFile !== undefined) server = read(serverFile, "the server");
  if (ca === undefined && caFile !== undefined) ca = read(caFile, "the CA");
  if (credential === undefined && tokenFile !== undefined) credential = tokenIn(tokenFile);
  if (credential === undefined && keyFile !== undefined) credential = keyIn(keyFile);
  const systemRoots = where.systemRoots ?? false;
  const missing = [
    server === undefined ? "no server (server, ACB_SERVER)" : "",
    ca === undefined && !systemRoots ? "no CA of the tenant (caFile, ACB_CA_FILE)" : "",
    credential === undefined ? "no credential (apiKeyFile, ACB_API_KEY_FILE, tokenFile, ACB_TOKEN_FILE)" : "",
  ].filter((what) => what !== "");
  if (server === undefined || credential === undefined || missing.length > 0) {
    const what = missing.join(", ");
    throw failure("USAGE", `the hub is not known: there is ${what}; or run \`acb login\`, and name its profile (ACB_PROFILE)`);
  }
  return { servers: listed(server), ca: ca ?? "", systemRoots, credential };
}

function listed(server: string | readonly string[]): string[] {
  const all = typeof server === "string" ? server.split(",") : server;
  return all.map((one) => one.trim()).filter((one) => one !== "");
}

function keyIn(file: string): Credential {
  return { kind: "apiKey", key: ApiKey.parse(read(file, "the API key")) };
}

/** It is read each time: whoever writes the file replaces it. */
export function tokenIn(file: string): Credential {
  const take = async () => {
    const handle = await open(file);
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(MOST_OF_TOKEN), 0, MOST_OF_TOKEN, 0);
      return buffer.toString("utf8", 0, bytesRead);
    } finally {
      await handle.close();
    }
  };
  return { kind: "subjectToken", name: file, read: take };
}

/** A small file; of a longer one its beginning. */
function read(file: string, what: string): string {
  let handle: number | undefined;
  try {
    handle = openSync(file, "r");
    const buffer = Buffer.alloc(MOST_OF_FILE);
    return buffer.toString("utf8", 0, readSync(handle, buffer));
  } catch (error) {
    throw failure("USAGE", `${what}, ${file}: ${(error as Error).message}`);
  } finally {
    if (handle !== undefined) closeSync(handle);
  }
}

function oneOf(named: Readonly<Record<string, unknown>>): void {
  const said = Object.keys(named).filter((name) => named[name] !== undefined);
  if (said.length > 1) throw failure("USAGE", `${said.join(" and ")}: one of them can be, not both`);
}
