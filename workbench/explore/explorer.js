// The explorer: what is picked and typed here, what it means is computed in Python.

const PAUSE = 350; // milliseconds without a key before a typed text is answered

class Explorer {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.line = new Line(model);
    this.text = this.good = null; // as typed, and the last that could be; null is the prompt's own
    this.changes = {}; // head → what becomes of its output
    this.query = null; // the decision
    this.wanted = null;
    this.busy = false;
  }

  async open() {
    this.start = await this.line.ask({ do: "start" });
    if (this.start.error) {
      this.root.textContent = this.start.error;
      return;
    }
    this.head = this.model.get("head") || this.start.head;
    this.prompt = this.model.get("prompt");
    this._build();
    this.heatmap.choose(this.head);
    this._say();
    await Promise.all([this._map(), this._view(["event", "answer", "head"])]);
    for (const name of ["head", "prompt", "map"])
      this.model.on(`change:${name}`, () => this._follow(name));
  }

  _build() {
    const start = this.start;
    this.heatmap = new Heatmap(start, (head) => this.pickHead(head));
    this.tokens = new Text(start, (at) => this.pickQuery(at));
    this.bars = new Bars(start);
    this.maps = this._select("map", start.maps, this.model.get("map"), (key) => this.pickMap(key));
    const prompts = start.prompts.map((title, key) => ({ key, title, group: "" }));
    this.prompts = this._select("prompt", prompts, this.prompt, (key) =>
      this.pickPrompt(Number(key)),
    );
    this.queries = make("select", { title: "the token whose attention is shown" });
    this.queries.addEventListener("change", () => this.pickQuery(Number(this.queries.value)));
    this.status = make("span", { className: "wbx-status" });
    this.title = make("div", { className: "wbx-title" });
    this.page = make("div", { className: "wbx-page" });
    this.page.addEventListener("click", (event) => {
      const goal = event.target.closest("[data-prompt]");
      if (goal) this.pickPrompt(Number(goal.dataset.prompt));
    });
    this.switches = new Switches(start, (head, how) => this.change(head, how));
    const left = [this.heatmap.node, this._part("Answer", this.bars.node)];
    left.push(this._part("Switch heads", this.switches.node));
    const right = [this.title, this._part("Attention", this._from(), this.tokens.node)];
    if (start.own_text) right.push(this._own());
    right.push(this.page);
    const by = (textContent, title) => make("button", { className: "wbx-step", title, textContent });
    const [back, on] = [by("‹", "previous prompt"), by("›", "next prompt")];
    back.addEventListener("click", () => this.pickPrompt(this.prompt - 1));
    on.addEventListener("click", () => this.pickPrompt(this.prompt + 1));
    this.root.replaceChildren(
      make(
        "div",
        { className: "wbx-top" },
        make("label", {}, "map", this.maps),
        make("div", { className: "wbx-pick" }, "prompt", back, this.prompts, on),
        this.status,
      ),
      make(
        "div",
        { className: "wbx-body" },
        make("div", { className: "wbx-left" }, ...left),
        make("div", { className: "wbx-right" }, ...right),
      ),
    );
  }

  _part(title, ...nodes) {
    return make(
      "section",
      {},
      make("div", { className: "wbx-heading", textContent: title }),
      ...nodes,
    );
  }

  _select(name, entries, chosen, pick) {
    const select = make("select", { name, ariaLabel: name });
    const groups = new Map();
    for (const { key, title, group } of entries) {
      const option = make("option", { value: key, textContent: title });
      if (!group) select.append(option);
      else if (groups.has(group)) groups.get(group).append(option);
      else {
        groups.set(group, make("optgroup", { label: group }, option));
        select.append(groups.get(group));
      }
    }
    if (chosen !== "" && chosen !== null) select.value = chosen;
    select.addEventListener("change", () => pick(select.value));
    return select;
  }

  _from() {
    const from = make("label", {}, "from", this.queries);
    const hint = make("span", { className: "wbx-hint", textContent: "or click on a token" });
    return make("div", { className: "wbx-from" }, from, hint, this.tokens.full);
  }

  _own() {
    this.area = make("textarea", { rows: 5, spellcheck: false });
    this.area.setAttribute("aria-label", "the prompt's text, to change");
    this.area.addEventListener("input", () => {
      clearTimeout(this.pause);
      this.back.disabled = false;
      this.pause = setTimeout(() => this.type(this.area.value), PAUSE);
    });
    this.back = make("button", { textContent: "back to the prompt", disabled: true });
    this.back.addEventListener("click", () => this.type(null));
    this.complaint = make("div", { className: "wbx-complaint" });
    const below = make("div", { className: "wbx-below" }, this.back, this.complaint);
    return this._part("Your text: change a word, the answer follows", this.area, below);
  }

  pickHead(head) {
    if (head === this.head) return;
    this._clock();
    this.head = head;
    this._remember("head", head);
    this.heatmap.choose(head);
    this._say();
    this._view(["head"]);
  }

  pickPrompt(prompt) {
    if (prompt < 0 || prompt >= this.start.prompts.length || prompt === this.prompt) return;
    this._clock();
    this.prompt = prompt;
    this._remember("prompt", prompt);
    this.prompts.value = prompt;
    this.text = this.good = this.query = null;
    this._view(["event", "answer", "head"]);
  }

  pickMap(key) {
    this._remember("map", key);
    this.maps.value = key;
    this._map();
  }

  pickQuery(at) {
    this._clock();
    this.query = at;
    this._view(["head"]);
  }

  type(text) {
    clearTimeout(this.pause);
    this._clock();
    if (text === null) this.area.value = this.own;
    this.text = text === this.own ? null : text;
    this.query = null;
    this._view(["event", "answer", "head"]);
  }

  // `how` is what becomes of a head's output, "" as it is; without a head all are as they are.
  change(head, how) {
    this._clock();
    if (head === null) this.changes = {};
    else if (how) this.changes[head] = how;
    else delete this.changes[head];
    this.switches.show(this.head, this.changes);
    this._view(["answer"]);
  }

  _remember(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  // A trait was set in Python.
  _follow(name) {
    const value = this.model.get(name);
    if (name === "head" && value) this.pickHead(value);
    if (name === "prompt") this.pickPrompt(value);
    if (name === "map" && value !== this.maps.value) this.pickMap(value);
  }

  _clock() {
    this.since = performance.now();
  }

  async _map() {
    const key = this.maps.value;
    const map = await this.line.ask({ do: "map", map: key, prompt: this.prompt, text: this.text });
    if (map.error) this.status.textContent = map.error;
    else if (key === this.maps.value) {
      this.heatmap.show(map);
      this._say();
    }
  }

  // One part after the other, so that a long prompt's text is there before its attention is.
  async _view(parts) {
    this.wanted = new Set([...(this.wanted ?? []), ...parts]);
    if (this.busy) return;
    this.busy = true;
    while (this.wanted) {
      const todo = ["event", "answer", "head"].filter((part) => this.wanted.has(part));
      this.wanted = null;
      const { prompt, text, head, query } = this;
      const changes = { ...this.changes };
      for (const part of todo) {
        const slow = setTimeout(() => (this.status.textContent = "computing …"), 250);
        const asked = { do: "view", parts: [part], prompt, text, changes, head, query };
        const reply = await this.line.ask(asked);
        clearTimeout(slow);
        this.status.textContent = reply.error ?? "";
        if (part === "event") this._judged(text, reply.error ?? "");
        if (reply.error) break;
        this._show(reply);
        if (this.wanted) {
          // Something newer is asked for; what was not shown of this is asked for with it.
          for (const left of todo.slice(todo.indexOf(part) + 1)) this.wanted.add(left);
          break;
        }
      }
    }
    this.busy = false;
    // Two frames later the browser has drawn it.
    const since = this.since;
    requestAnimationFrame(() =>
      requestAnimationFrame(() => {
        this.root.dataset.drawn = Math.round(performance.now() - since);
      }),
    );
  }

  _show({ event, answer, head }) {
    if (event) {
      this.tokens.show(event);
      this.own = event.own;
      if (this.heatmap.shown?.of_prompt) this._map();
      if (this.area) {
        if (this.text === null) this.area.value = event.own;
        this.back.disabled = this.area.value === event.own;
      }
    }
    if (answer) this.bars.show(answer);
    if (head) {
      this.queries.replaceChildren(
        ...head.queries.map(([name, at]) => make("option", { value: at, textContent: `${name} (token ${at})` })),
      );
      this.queries.value = head.query;
      this.tokens.attend(head.weights, head.query);
      if (event || this.query === null) this.tokens.reveal(head.weights, head.query);
      this.page.innerHTML = head.page;
    }
  }

  _say() {
    this.switches.show(this.head, this.changes);
    const [place, ...rest] = this.heatmap.words(this.head);
    const pool = this.start.pools[this.head];
    this.title.replaceChildren(make("b", { textContent: `Head ${this.head}` }));
    if (pool) {
      const tag = make("span", { className: "wbx-pool", textContent: pool.pool });
      tag.style.borderColor = pool.colour;
      this.title.append(tag);
    }
    const said = rest.filter((line) => line !== pool?.pool).join(" · ");
    this.title.append(make("span", { className: "wbx-hint", textContent: said || place }));
  }

  // A text that was refused stays in the box, and the last good one is what is looked at.
  _judged(text, complaint) {
    if (!this.area) return;
    if (complaint) this.text = this.good;
    else this.good = text;
    this.status.textContent = "";
    this.complaint.textContent = complaint;
    this.area.classList.toggle("wbx-wrong", Boolean(complaint));
  }
}

function render({ model, el }) {
  // Arrow keys are the explorer's while it has the focus, not the notebook's.
  const root = make("div", { className: "wbx" });
  root.dataset.lmSuppressShortcuts = "true";
  el.append(root);
  const explorer = new Explorer(model, root);
  explorer.open();
  return () => explorer.line.close();
}

export default { render };
