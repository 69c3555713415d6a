/** A set that forgets its oldest member when it is full. */
export class Seen {
  readonly #members = new Set<string>();

  constructor(readonly most: number) {}

  has(id: string): boolean {
    return this.#members.has(id);
  }

  add(id: string): void {
    if (this.#members.has(id)) return;
    this.#members.add(id);
    if (this.#members.size > this.most) {
      for (const oldest of this.#members) {
        this.#members.delete(oldest);
        break;
      }
    }
  }

  get size(): number {
    return this.#members.size;
  }
}
