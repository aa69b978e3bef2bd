// The heat map: layers upwards, heads to the right; a head is picked by click or arrow keys.

const SVG = "http://www.w3.org/2000/svg";

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  let text = String(Number(value.toPrecision(3)));
  if (size >= 0.1 && size < 100) text = value.toFixed(2);
  else if (size > 0 && size < 0.001) text = value.toExponential(1);
  return text.replaceAll("-", "−");
}

function plain(value) {
  return Number.isInteger(value) ? String(value) : number(value);
}

function colourOf(scale, share) {
  const at = ((Math.max(-1, Math.min(1, share)) + 1) / 2) * (scale.length - 1);
  const low = Math.min(Math.floor(at), scale.length - 2);
  const [from, to] = [low, low + 1].map((i) => scale[i].match(/\d+/g).map(Number));
  const mixed = from.map((x, i) => Math.round(x + (to[i] - x) * (at - low)));
  return `rgb(${mixed.join(",")})`;
}

// At most 16 ticks, so that labels never touch.
function ticks(count) {
  const step = [1, 2, 4, 5, 8, 10, 16, 32].find((one) => count <= 16 * one) ?? 64;
  return Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step);
}

class Heatmap {
  constructor(start, pick) {
    this.start = start;
    this.pick = pick;
    const { layers, heads } = start;
    this.high = Math.max(5, Math.min(34, Math.floor(440 / layers)));
    this.wide = Math.max(5, Math.min(38, 375 / heads, 3 * this.high));
    this.tip = make("div", { className: "wbx-tip", hidden: true });
    this.caption = make("div", { className: "wbx-caption" });
    this.bar = make("div", { className: "wbx-bar" });
    this.node = make(
      "div",
      { className: "wbx-map" },
      this._drawing(),
      this.tip,
      this.bar,
      this._legend(),
      this.caption,
    );
  }

  _drawing() {
    const { layers, heads, pools, palette } = this.start;
    const [left, below] = [30, 32];
    const [width, height] = [heads * this.wide, layers * this.high];
    const drawing = svg("svg", {
      width: left + width + 4,
      height: height + below + 4,
      tabindex: 0,
      role: "application",
      "aria-label": "heat map of heads: arrow keys move, the page beside it follows",
    });
    const cells = svg("g", { transform: `translate(${left},2)` });
    const gap = this.high > 8 ? 1 : 0.5;
    this.cells = [];
    for (let layer = 0; layer < layers; layer++) {
      for (let head = 0; head < heads; head++) {
        const cell = svg("rect", {
          ...this._corner(layer, head),
          width: this.wide - gap,
          height: this.high - gap,
          fill: palette.none,
          "data-head": `${layer}-${head}`,
        });
        this.cells.push(cell);
        cells.append(cell);
      }
    }
    for (const [name, { colour, read_out }] of Object.entries(pools)) {
      const dashes = read_out ? { "stroke-dasharray": "3 2" } : {};
      cells.append(this._outline(name, 1.5, { stroke: "white", "stroke-width": 3.5 }));
      cells.append(this._outline(name, 1.5, { stroke: colour, "stroke-width": 2, ...dashes }));
    }
    this.cursor = ["wbx-halo", "wbx-cursor"].map((name) =>
      this._outline(this.start.head, -1, { class: name }),
    );
    cells.append(...this.cursor);
    const labels = svg("g", { class: "wbx-ticks" });
    const say = (x, y, text, anchor = "middle", more = {}) => {
      const node = svg("text", { x, y, "text-anchor": anchor, ...more });
      node.textContent = text;
      labels.append(node);
    };
    for (const layer of ticks(layers))
      say(left - 4, 2 + (layers - layer - 0.5) * this.high + 3.5, layer, "end");
    for (const head of ticks(heads)) say(left + (head + 0.5) * this.wide, height + 14, head);
    say(left + width / 2, height + 28, "head");
    const turned = { transform: `rotate(-90 9 ${height / 2})` };
    say(9, height / 2, "layer", "middle", turned);
    drawing.append(cells, labels);
    this.drawing = drawing;
    cells.addEventListener("pointerdown", (event) => {
      const name = event.target.dataset?.head;
      if (name) this.pick(name);
    });
    cells.addEventListener("pointermove", (event) => this._hover(event.target.dataset?.head));
    drawing.addEventListener("pointerleave", () => this._hover());
    drawing.addEventListener("keydown", (event) => this._key(event));
    return drawing;
  }

  _corner(layer, head) {
    return { x: head * this.wide, y: (this.start.layers - 1 - layer) * this.high };
  }

  _outline(name, inset, attributes) {
    const node = svg("rect", { fill: "none", "pointer-events": "none", rx: 1, ...attributes });
    this._put(node, name, this.high > 10 ? inset : Math.min(inset, 0));
    return node;
  }

  _put(node, name, inset) {
    const { x, y } = this._corner(...name.split("-").map(Number));
    const place = { x: x + inset, y: y + inset };
    const size = { width: this.wide - 1 - 2 * inset, height: this.high - 1 - 2 * inset };
    for (const [key, value] of Object.entries({ ...place, ...size })) node.setAttribute(key, value);
  }

  _legend() {
    const names = new Map(Object.values(this.start.pools).map((one) => [one.pool, one]));
    const legend = make("div", { className: "wbx-legend" });
    for (const [pool, { colour, read_out }] of names) {
      const box = make("i");
      box.style.border = `2px ${read_out ? "dashed" : "solid"} ${colour}`;
      legend.append(make("span", {}, box, pool));
    }
    return legend;
  }

  _key(event) {
    const step = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const move = step[event.key];
    if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    this._hover();
    const [layer, head] = this.chosen.split("-").map((x, i) => Number(x) + move[i]);
    const inside = layer >= 0 && head >= 0;
    if (inside && layer < this.start.layers && head < this.start.heads)
      this.pick(`${layer}-${head}`);
  }

  choose(name) {
    this.chosen = name;
    for (const node of this.cursor) this._put(node, name, this.high > 10 ? -1 : -3);
  }

  // "layer 4, head 3: 0.49 [0.35, 0.64]" and what else the map holds of a head.
  words(name) {
    const [layer, head] = name.split("-").map(Number);
    const at = layer * this.start.heads + head;
    const map = this.shown;
    const pool = this.start.pools[name]?.pool;
    const lines = [`layer ${layer}, head ${head}`];
    if (map && map.values[at] !== null) {
      const ends = [map.low?.[at], map.high?.[at]];
      const known = ends.every((x) => x !== null && x !== undefined);
      lines.push(number(map.values[at]) + (known ? ` [${ends.map(number).join(", ")}]` : ""));
      for (const [what, values] of Object.entries(map.more ?? {}))
        if (values[at] !== null) lines.push(`${what} ${plain(values[at])}`);
    } else if (map) lines.push("no value in this map");
    return pool ? [...lines, pool] : lines;
  }

  _hover(name) {
    this.tip.hidden = !name;
    if (!name) return;
    const [layer, head] = name.split("-").map(Number);
    const { x, y } = this._corner(layer, head);
    const [first, ...rest] = this.words(name);
    this.tip.replaceChildren(make("b", { textContent: first }));
    for (const line of rest) this.tip.append(make("div", { textContent: line }));
    this.tip.style.left = `${Math.min(x + this.wide + 36, 240)}px`;
    this.tip.style.top = `${y + this.high + 8}px`;
  }

  show(map) {
    this.shown = map;
    const { scale, none } = this.start.palette;
    this.cells.forEach((cell, at) => {
      const value = map.values[at];
      cell.setAttribute("fill", value === null ? none : colourOf(scale, value / map.limit));
    });
    const ends = [-map.limit, 0, map.limit].map(number);
    const beyond = map.values.some((x) => x !== null && Math.abs(x) > map.limit * 1.0001);
    if (beyond) [ends[0], ends[2]] = [`≤ ${ends[0]}`, `≥ ${ends[2]}`];
    const strip = make("i");
    strip.style.background = `linear-gradient(to right, ${scale.join(",")})`;
    this.bar.replaceChildren(ends[0], strip, ends[2], make("span", { textContent: map.unit }));
    this.caption.textContent = map.note;
  }
}
