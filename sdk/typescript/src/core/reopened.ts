/** A stream of answers that is opened again where it breaks. */

import type { DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf";

import { clock, Limited } from "./backoff.js";
import { ATTEMPT, type Caller, type Line, type Renewal } from "./caller.js";
import { type AcbError, during, failure, isOurs } from "./error.js";
import { type Incoming, Status } from "./transport.js";
import { abortable, throwIfAny, within } from "./wait.js";

/** What was open for so long was not opened in vain, also where nothing came. */
const STEADY = 10_000;

interface Open<M extends DescMethod> {
  readonly line: Line;
  readonly answers: Incoming<M>;
  readonly since: number;
}

/** One stream of a call whose first answer comes at once. Whoever reads it keeps where it is, and says with what it is opened from there. */
export class Reopened<M extends DescMethod> {
  readonly #caller: Caller;
  readonly #method: M;
  /** What errors say that was done. */
  readonly #doing: string;
  readonly #signal: AbortSignal | undefined;
  readonly #patience;
  readonly #renewal: Renewal = { renewed: false };
  readonly #ending = new AbortController();
  #limited = new Limited();
  #open: Open<M> | undefined;

  constructor(caller: Caller, method: M, doing: string, signal: AbortSignal | undefined) {
    this.#caller = caller;
    this.#method = method;
    this.#doing = doing;
    this.#signal = signal;
    this.#patience = caller.patience();
  }

  get isClosed(): boolean {
    return this.#ending.signal.aborted;
  }

  close(): void {
    this.#ending.abort(failure("UNAVAILABLE", `${this.#doing}: it is closed`));
    this.#drop();
  }

  /** The next answer, of the open stream or the first one of a new one. Undefined: it broke, and is to be asked again. After an error it is over. */
  async next(request: () => MessageInitShape<M["input"]>): Promise<MessageShape<M["output"]> | undefined> {
    if (this.#open === undefined) return await this.open(request);
    const { line, answers } = this.#open;
    let answer: MessageShape<M["output"]> | undefined;
    try {
      answer = await abortable(answers.receive(), this.#signal, this.#ending.signal);
    } catch (error) {
      if (!(error instanceof Status)) throw error;
      await this.#recover(line, error);
      return undefined;
    }
    if (answer === undefined) await this.#leave(line, failure("UNAVAILABLE", "the hub closed the stream"));
    else this.#patience.renew();
    return answer;
  }

  /** Opens it, and gives its first answer. */
  async open(request: () => MessageInitShape<M["input"]>): Promise<MessageShape<M["output"]>> {
    const signals = [this.#signal, this.#ending.signal];
    for (;;) {
      throwIfAny(signals);
      let line: Line;
      try {
        line = await this.#caller.line(crypto.randomUUID(), this.#patience, ...signals);
      } catch (error) {
        if (!isOurs(error) || this.isClosed) throw error;
        if (!error.isRetryable) throw during(this.#doing, error);
        await this.#pause(error);
        continue;
      }
      const answers = line.channel.receiving(this.#method, request(), line.headers);
      const late = () => failure("TIMEOUT", "the hub did not open the stream in time");
      let first: MessageShape<M["output"]> | undefined;
      let broken = failure("UNAVAILABLE", "the hub closed the stream at once");
      try {
        first = await within(ATTEMPT, () => answers.receive(), late, ...signals);
      } catch (error) {
        answers.cancel();
        if (error instanceof Status) {
          await this.#recover(line, error);
          continue;
        }
        if (!isOurs(error) || this.isClosed || this.#signal?.aborted === true) throw error;
        broken = error;
      }
      if (first !== undefined) {
        this.#renewal.renewed = false;
        this.#limited = new Limited();
        this.#open = { line, answers, since: clock.now() };
        return first;
      }
      answers.cancel();
      await this.#leave(line, broken);
    }
  }

  async #recover(line: Line, status: Status): Promise<void> {
    this.#drop();
    const next = this.#caller.judge(line, status, this.#renewal);
    if (next.kind === "again") return;
    if (next.kind === "later") return await this.#pause(next.error);
    // Such as too many streams: those of a replica that died count for a while.
    const again = this.#limited.againAt(next.error);
    if (again === undefined) throw during(this.#doing, next.error);
    this.#caller.platform.log.warn("waiting for a limit", { error: next.error.message });
    await clock.sleep(again - clock.now(), this.#signal, this.#ending.signal, this.#patience.ending);
  }

  async #leave(line: Line, error: AcbError): Promise<void> {
    this.#caller.leave(line);
    await this.#pause(error);
  }

  #drop(): void {
    const open = this.#open;
    this.#open = undefined;
    open?.answers.cancel();
    if (open !== undefined && clock.now() - open.since >= STEADY) this.#patience.renew();
  }

  async #pause(error: AcbError): Promise<void> {
    this.#drop();
    try {
      await abortable(this.#patience.wait(error, this.#ending.signal), this.#signal);
    } catch (thrown) {
      throw isOurs(thrown) && !this.isClosed ? during(this.#doing, thrown) : thrown;
    }
  }
}
