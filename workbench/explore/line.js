// Requests {id, do, …} to Python as custom messages; replies carry the same id. Nothing of them is
// part of what a notebook saves.

class Line {
  constructor(model) {
    this.model = model;
    this.waiting = new Map();
    this.prefix = Math.random().toString(36).slice(2);
    this.count = 0;
    this.heard = (reply) => {
      const resolve = this.waiting.get(reply.id);
      this.waiting.delete(reply.id);
      resolve?.(reply);
    };
    model.on("msg:custom", this.heard);
  }

  ask(request) {
    const id = `${this.prefix}-${this.count++}`;
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      this.model.send({ id, ...request });
    });
  }

  close() {
    this.model.off("msg:custom", this.heard);
  }
}
