// The text of a prompt with a head's attention over it, the answer as bars, and heads' switches.

class Text {
  constructor(start, pickQuery) {
    this.colours = start.colours;
    this.full = make("span", { className: "wbx-hint" });
    this.node = make("div", { className: "wbx-text" });
    this.node.addEventListener("click", (event) => {
      const at = event.target.dataset?.at;
      if (at !== undefined) pickQuery(Number(at));
    });
  }

  // `event`: tokens, and marks [start, end, role, label] of evidence, options and chain steps.
  show(event) {
    this.spans = event.tokens.map((token, at) => {
      const span = make("span", { textContent: token });
      span.dataset.at = at;
      return span;
    });
    this.role = event.tokens.map(() => "");
    for (const [start, end, role, label] of event.marks) {
      for (let at = start; at < end && at < this.spans.length; at++) {
        this.role[at] = this.role[at] || role;
        this.spans[at].style.borderBottomColor = this.colours[role];
        this.spans[at].dataset.label = this.spans[at].title = label;
      }
    }
    this.node.replaceChildren(...this.spans);
  }

  // Colour behind a token goes by its weight, against the largest but that of the first token.
  attend(weights, query) {
    const largest = Math.max(1e-3, ...weights.slice(1, query + 1));
    this.spans.forEach((span, at) => {
      const share = Math.min(1, (weights[at] ?? 0) / largest);
      const strength = Math.round(255 * 0.7 * share);
      const alpha = strength.toString(16).padStart(2, "0");
      span.style.background = strength > 3 ? this.colours.attention + alpha : "";
      span.classList.toggle("wbx-query", at === query);
      span.classList.toggle("wbx-later", at > query);
      const said = at > query ? "after this query" : `attention ${number(weights[at])}`;
      span.title = `${said} · token ${at}${span.dataset.label ? `\n${span.dataset.label}` : ""}`;
    });
    this.full.textContent = `full colour: ${number(largest)}, the largest behind the first token`;
  }

  // Bring the strongest token, or the query, into sight.
  reveal(weights, query) {
    let best = query;
    for (let at = 1; at <= query; at++) if (weights[at] > weights[best]) best = at;
    const span = this.spans[best];
    const box = this.node;
    const [top, below] = [span.offsetTop, span.offsetTop + span.offsetHeight];
    if (top < box.scrollTop || below > box.scrollTop + box.clientHeight)
      box.scrollTop = top - box.clientHeight / 2;
  }
}

class Bars {
  constructor(start) {
    this.colours = start.colours;
    this.node = make("div", { className: "wbx-bars" });
  }

  // Rows with p before and after, null of options that have no part in it; before is thin.
  show(answer) {
    const row = (name, colour, { before, after }, kind, title) => {
      const bars = make("div", { className: "wbx-track" });
      for (const [which, value] of [["before", before], ["after", after]]) {
        const bar = make("i", { className: `wbx-${which}` });
        bar.style.width = `${100 * (value ?? 0)}%`;
        bar.style.background = colour;
        bars.append(bar);
      }
      const moved = Math.abs(after - before) >= 0.005 ? `${before.toFixed(2)} → ` : "";
      const now = after === null ? "–" : after.toFixed(2);
      const label = make("span", { className: "wbx-label", textContent: name });
      label.style.borderLeftColor = colour;
      const said = make("span", { className: "wbx-number", textContent: moved + now });
      const node = make("div", { className: `wbx-row ${kind}`, title }, label, bars, said);
      node.dataset.after = after;
      return node;
    };
    const readouts = answer.readouts.map((one) =>
      row(one.name, this.colours.readout, one, "wbx-readout", one.words),
    );
    const options = answer.options.map((one) => {
      const words = `${one.label}\n${one.role}, logit ${number(one.logit)}`;
      return row(one.text, this.colours[one.role], one, "", words);
    });
    const box = make("div", { className: "wbx-options" }, ...options);
    const above = this.options?.scrollTop ?? 0;
    this.options = box;
    this.node.replaceChildren(...readouts, box);
    box.scrollTop = above;
  }
}

// What becomes of the picked head's output, and the list of all heads that are switched.
class Switches {
  constructor(start, change) {
    this.choices = start.switches;
    this.change = change;
    this.name = make("span", { className: "wbx-which" });
    this.buttons = make("div", { className: "wbx-segments" });
    this.chips = make("div", { className: "wbx-chips" });
    const line = make("div", { className: "wbx-switches" }, this.name, this.buttons);
    this.node = make("div", {}, line, this.chips);
  }

  show(head, changes) {
    this.name.textContent = head;
    const buttons = this.choices.map(({ key, title, words }) => {
      const button = make("button", { textContent: title, title: words });
      button.dataset.how = key;
      button.setAttribute("aria-pressed", key === (changes[head] ?? ""));
      button.addEventListener("click", () => this.change(head, key));
      return button;
    });
    this.buttons.replaceChildren(...buttons);
    const chips = Object.entries(changes).map(([switched, how]) => {
      const title = this.choices.find((one) => one.key === how).title;
      const off = make("button", { textContent: "×", title: "as it is" });
      off.addEventListener("click", () => this.change(switched, ""));
      return make("span", { className: "wbx-chip" }, `${switched}: ${title}`, off);
    });
    if (chips.length > 1) {
      const clear = make("button", { textContent: "clear all" });
      clear.addEventListener("click", () => this.change(null, ""));
      chips.push(clear);
    }
    this.chips.replaceChildren(...chips);
  }
}
