/** Connections to the replicas of one hub: TLS 1.3 with the tenant's CA, one connection at a time, to whichever replica answers. */

import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { checkServerIdentity, connect, createSecureContext, rootCertificates, type SecureContext } from "node:tls";

import { ChannelCredentials, type ChannelOptions, Client } from "@grpc/grpc-js";

import { AcbError, failure } from "../core/error.js";
import type { Link, Replicas } from "../core/transport.js";
import { GrpcChannel } from "./grpc.js";

const CONNECT_TIMEOUT = 3_000;
/** How long a connection that was left, and has no call, is still there for who took it before and is about to call. */
const LINGER = 2_000;

const OPTIONS: ChannelOptions = {
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  // What is tried again, and where, is decided above.
  "grpc.enable_retries": 0,
  "grpc.service_config_disable_resolution": 1,
  // A new connection must not be the one that was left.
  "grpc.use_local_subchannel_pool": 1,
  "grpc-node.flow_control_window": 4 << 20,
};

/** Codes of Node for a certificate that is not to be trusted. */
const UNTRUSTED = /^(CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|ERR_TLS_CERT_|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_)/;

/** Why there is no connection to a replica. */
class Unreached extends Error {
  constructor(
    cause: string,
    readonly isUntrusted = false,
  ) {
    super(cause);
  }
}

const silent = () => new Unreached(`no answer within ${CONNECT_TIMEOUT / 1000} s`);

export interface Roots {
  /** The tenant's CA, as PEM. */
  readonly ca: string;
  /** Whether the CAs that Node has with it are trusted, too. */
  readonly systemRoots: boolean;
}

export class NodeReplicas implements Replicas {
  readonly #endpoints: readonly string[];
  readonly #context: SecureContext;
  /** Where all of them are reached, whatever their names resolve to. */
  readonly #through: string | undefined;
  #current: (Link & { readonly channel: GrpcChannel }) | undefined;
  #connecting: Promise<Link> | undefined;
  #next: number;
  #ids = 0;
  readonly #ending = new AbortController();
  /** Connections that were left, and are not closed yet. */
  readonly #left = new Set<GrpcChannel>();

  constructor(endpoints: readonly string[], roots: Roots, through?: string) {
    if (endpoints.length === 0) throw failure("USAGE", "no endpoint was given: name at least one, such as https://hub.example:8443");
    this.#endpoints = endpoints.map(normal);
    this.#context = secureContext(roots);
    this.#through = through === undefined ? undefined : normal(through);
    this.#next = Math.floor(Math.random() * endpoints.length);
  }

  async link(): Promise<Link> {
    this.#ending.signal.throwIfAborted();
    if (this.#current !== undefined) return this.#current;
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = undefined;
    });
    return await this.#connecting;
  }

  leave(id: number): void {
    if (this.#current?.id !== id) return;
    const { channel } = this.#current;
    this.#current = undefined;
    this.#next += 1;
    // Who took it a moment ago is about to call, and one call that failed must not be the end of the others.
    this.#left.add(channel);
    channel.retire(LINGER, () => this.#left.delete(channel));
  }

  close(): void {
    this.#ending.abort(failure("UNAVAILABLE", "the client is closed"));
    for (const channel of this.#left) channel.close();
    this.#left.clear();
    this.#current?.channel.close();
    this.#current = undefined;
  }

  async #connect(): Promise<Link> {
    const failures: string[] = [];
    let untrusted = 0;
    for (let tries = 0; tries < this.#endpoints.length; tries += 1) {
      const endpoint = this.#endpoints[this.#next % this.#endpoints.length] as string;
      try {
        const client = await this.#dial(endpoint);
        if (this.#ending.signal.aborted) client.close();
        this.#ending.signal.throwIfAborted();
        this.#current = { id: this.#ids++, endpoint, channel: new GrpcChannel(client) };
        return this.#current;
      } catch (error) {
        if (!(error instanceof Unreached)) throw error;
        untrusted += error.isUntrusted ? 1 : 0;
        failures.push(`${endpoint}: ${error.message}`);
        this.#next += 1;
      }
    }
    // With time another replica may answer, and be trusted. Where all did, and none is, time mends nothing.
    if (untrusted === this.#endpoints.length) {
      throw failure("UNTRUSTED", `the given CA is not that of the hub: ${failures.join("; ")}`);
    }
    throw failure("UNAVAILABLE", `no replica of the hub answers: ${failures.join("; ")}`);
  }

  async #dial(endpoint: string): Promise<Client> {
    const name = bare(new URL(endpoint).hostname);
    const target = this.#through === undefined ? endpoint : this.#through;
    const credentials = ChannelCredentials.createFromSecureContext(this.#context, {
      // A verification that an environment variable switches off is none.
      rejectUnauthorized: true,
      checkServerIdentity: (_sent, certificate) => checkServerIdentity(name, certificate),
    });
    // TLS has no name for an address (RFC 6066), and gRPC would send one: any other will do, as it is the address that is checked.
    const sent = isIP(name) === 0 ? name : "localhost";
    const names = { "grpc.ssl_target_name_override": sent, "grpc.default_authority": withPort(endpoint) };
    const client = new Client(`dns:${withPort(target)}`, credentials, { ...OPTIONS, ...names });
    const { signal } = this.#ending;
    const began = performance.now();
    const ready = await new Promise<boolean>((resolve) => {
      const ended = () => resolve(false);
      signal.addEventListener("abort", ended, { once: true });
      client.waitForReady(Date.now() + CONNECT_TIMEOUT, (error) => {
        signal.removeEventListener("abort", ended);
        resolve(error === undefined);
      });
      // It would try for the whole time; one refusal is enough to go to the next.
      const channel = client.getChannel();
      const look = () => {
        const state = channel.getConnectivityState(false);
        if (state === 3 || state === 4) return resolve(false);
        if (state !== 2) channel.watchConnectivityState(state, Date.now() + CONNECT_TIMEOUT, (error) => error === undefined && look());
      };
      look();
    });
    if (ready) return client;
    client.close();
    signal.throwIfAborted();
    // One that is silent would be silent once more.
    if (performance.now() - began >= CONNECT_TIMEOUT) throw silent();
    throw await this.#why(endpoint, target);
  }

  /** The cause that gRPC does not tell: the same handshake, by itself. */
  #why(endpoint: string, target: string): Promise<Unreached> {
    const url = new URL(target);
    const name = bare(new URL(endpoint).hostname);
    const { signal } = this.#ending;
    return new Promise((resolve) => {
      const socket = connect({
        host: bare(url.hostname),
        port: Number(url.port),
        secureContext: this.#context,
        ALPNProtocols: ["h2"],
        rejectUnauthorized: true,
        ...(isIP(name) === 0 ? { servername: name } : {}),
        checkServerIdentity: (_sent, certificate) => checkServerIdentity(name, certificate),
      });
      const tell = (unreached: Unreached) => {
        clearTimeout(timer);
        signal.removeEventListener("abort", ended);
        socket.destroy();
        resolve(unreached);
      };
      const ended = () => tell(new Unreached("the client is closed"));
      signal.addEventListener("abort", ended, { once: true });
      const timer = setTimeout(() => tell(silent()), CONNECT_TIMEOUT);
      socket.on("error", (error: NodeJS.ErrnoException) => tell(new Unreached(error.message || (error.code ?? ""), UNTRUSTED.test(error.code ?? ""))));
      socket.on("secureConnect", () => tell(new Unreached("it did not answer, and now it does")));
      socket.on("close", () => tell(new Unreached("it closed the connection")));
    });
  }
}

function secureContext({ ca, systemRoots }: Roots): SecureContext {
  const own = ca.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [];
  if (own.length === 0 && !systemRoots) throw failure("USAGE", "the CA holds no certificate: give the tenant's ca.crt, as PEM");
  for (const certificate of own) {
    try {
      new X509Certificate(certificate);
    } catch (error) {
      throw failure("USAGE", `the CA can't be used: ${(error as Error).message}`);
    }
  }
  return createSecureContext({ ca: [...own, ...(systemRoots ? rootCertificates : [])], minVersion: "TLSv1.3" });
}

/** Without the brackets of an IPv6 address. */
function bare(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, "");
}

function withPort(endpoint: string): string {
  return endpoint.replace(/^https:\/\//, "");
}

/** `https://host:port` from what people write: a scheme may be missing, the port may be. */
export function normal(text: string): string {
  const wrong = (what: string): AcbError =>
    failure("USAGE", `${JSON.stringify(text)} is not an endpoint: ${what}; write https://host:port`);
  const trimmed = text.trim().replace(/\/+$/, "");
  if (/^http:\/\//i.test(trimmed)) throw wrong("a hub speaks TLS only");
  const rest = trimmed.replace(/^https:\/\//i, "");
  const parts = /^(\[[0-9a-fA-F:.]+\]|[^\s/?#@:[\]]+)(?::(\d{1,5}))?$/.exec(rest);
  if (parts === null) throw wrong("it needs a host and no path");
  const port = Number(parts[2] ?? 8443);
  if (port < 1 || port > 65_535) throw wrong("that is no port");
  // Said as it is meant: a URL would drop the port of https.
  return `https://${parts[1]}:${port}`;
}
