// Live mode without a browser: when to draw, what to stop, what to keep. Everything that touches the host comes in as
// `host`, so that it can be tested with a clock and a queue of its own.
import { livePrompt, recipe } from "./prompts.mjs";

/**
 * host.graph() -> {output, workflow, typed}   the graph as the host would queue it, seeds as they stand; or null. `typed` is
 *                                             the output before the host threw dice for {this|that}, where it differs
 * host.define(class_type)                     see prompts.mjs
 * host.queue(prompt, targets, workflow) -> id
 * host.cancel(id)                             drop it if it waits, interrupt it if it runs; no other prompt is touched
 * host.after(ms, f) -> cancel()               a timer
 * host.show(state, detail)                    what the user reads; states: ready, nothing, draft, full, drawn, yours, error
 * host.delays() -> {pause, rest}              milliseconds: of no typing before a draft, after a draft before the full run
 */
export class Live {
  constructor(host) {
    this.host = host;
    this.on = false;
    this.turn = 0; // counts drawings, so that a late answer to an earlier one is known for what it is
    this.forget();
  }

  forget() {
    this.job = null; // the one prompt of ours that waits or runs
    this.shown = null; // what the picture on screen was made from
    this.drawn = null; // the recipe of the last draft or full run begun
    this.turn += 1;
    this.pausing = false;
    this.stopPause = this.stopRest = () => {};
  }

  start() {
    this.on = true;
    this.host.show("ready");
    this.touch();
  }

  async stop() {
    this.on = false;
    this.stopPause();
    this.stopRest();
    const { job } = this;
    this.forget();
    if (job) await this.host.cancel(job.id);
  }

  /** The user is in the middle of something (a word in an input method), which a touch will end. */
  hold() {
    if (!this.on) return;
    this.stopPause();
    this.pausing = true;
  }

  /** The user did something that may have changed the graph. */
  touch() {
    if (!this.on) return;
    this.hold();
    this.stopPause = this.host.after(this.host.delays().pause, () => {
      this.pausing = false;
      return this.look();
    });
  }

  /** The user queued the graph: that draws it, and what it changes (the next run's seed) is no wish to draw. */
  async queued() {
    if (!this.on) return;
    this.turn += 1;
    try {
      const graph = await this.host.graph();
      if (!this.on || !graph) return;
      this.drawn = this.wish(graph);
      await this.drop();
      this.host.show("yours");
    } catch (error) {
      this.failed(error);
    }
  }

  /** Draw if the graph is not the one that was drawn last. */
  async look() {
    try {
      const graph = await this.host.graph();
      if (this.on && graph) await this.compare(graph);
    } catch (error) {
      this.failed(error); // the graph makes no prompt, or the server is gone
    }
  }

  /** Whatever the cure is, a widget or a file or a server, what was not drawn is tried again when the user goes on. */
  failed(error) {
    this.drawn = null;
    this.host.show("error", error);
  }

  wish = (graph) => recipe(livePrompt(graph.typed ?? graph.output, this.host.define, true));

  async compare(graph) {
    const now = this.wish(graph);
    if (now === this.drawn) return;
    this.drawn = now;
    const live = livePrompt(graph.output, this.host.define, true);
    if (live.targets.length === 0) {
      this.turn += 1;
      await this.drop();
      this.host.show("nothing");
      return;
    }
    await this.draw(graph, live, live.draws.every((draw) => draw.kind === "full"));
  }

  async draw(graph, live, full) {
    const turn = ++this.turn;
    try {
      await this.drop();
      if (turn !== this.turn || !this.on) return;
      this.host.show(full ? "full" : "draft", live.draws);
      const id = await this.host.queue(live.prompt, live.targets, graph.workflow);
      const job = { id, full, graph, draws: live.draws };
      if (turn === this.turn && this.on) this.job = job;
      else await this.host.cancel(id);
    } catch (error) {
      if (turn === this.turn) this.failed(error);
    }
  }

  /** Give up on our own prompt, if there is one. */
  async drop() {
    this.stopRest();
    const job = this.job;
    this.job = null;
    if (job) await this.host.cancel(job.id);
  }

  /** A picture of one of our prompts has arrived. */
  pictured(id) {
    if (this.job?.id === id) this.shown = { ...this.job.graph, full: this.job.full, draws: this.job.draws };
  }

  /** One of our prompts has ended; `error` says why if it was not because it was done. */
  ended(id, error) {
    if (this.job?.id !== id) return;
    const { full, graph, draws } = this.job;
    this.job = null;
    if (error) {
      this.host.show("error", error);
      return;
    }
    this.host.show("drawn", { full, draws });
    if (!full) this.rest(graph);
  }

  /** The full run, once the user has rested; whoever is typing has not. */
  rest(graph) {
    this.stopRest = this.host.after(this.host.delays().rest, () => {
      if (this.pausing) return this.rest(graph);
      return this.draw(graph, livePrompt(graph.output, this.host.define, false), true);
    });
  }

  /** One of our prompts is gone, and how it ended was not heard: draw again. */
  lost(id) {
    if (this.job?.id !== id) return;
    this.job = null;
    this.drawn = null;
    this.touch();
  }
}
