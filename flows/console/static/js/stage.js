// The image with its outlines: zoom, pan, a keyboard cursor, clicks, boxes and areas. Coordinates are image pixels.

import { colourOf, h, s } from "./dom.js";

const DRAG = 6; // screen pixels from which a press is a drag
const STEP = 0.02; // of the visible width, per press of an arrow key

export const pathOf = (rings) => rings.map((ring) => `M${ring.join(" ")}Z`).join("");

export class Stage {
  // on: {click(x, y, foreground), box([x, y, w, h]), area(polygon, add), pick(kind, index)}
  constructor(size, source, large, label, on) {
    Object.assign(this, { size, on, mode: "click", cursor: null, large });
    this.view = { x: 0, y: 0, width: size.width, height: size.height };
    this.image = s("image", { href: source, width: size.width, height: size.height });
    this.shapes = s("g");
    this.marks = s("g");
    this.svg = s("svg", { tabindex: 0, role: "application", "aria-label": label, preserveAspectRatio: "xMidYMid meet" },
      this.image, this.shapes, this.marks);
    this.busy = h("div", { class: "busy", hidden: true });
    this.element = h("div", { class: "stage" }, this.svg, this.busy);
    this.svg.addEventListener("contextmenu", (event) => event.preventDefault());
    this.svg.addEventListener("pointerdown", (event) => this.#down(event));
    this.svg.addEventListener("pointermove", (event) => this.#move(event));
    this.svg.addEventListener("pointerup", (event) => this.#up(event));
    this.svg.addEventListener("pointercancel", () => this.#end());
    this.svg.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.#apply();
  }

  draw(objects, drafts, current, selected) {
    const scale = this.#pixel();
    const path = (item, index, kind, extra) => {
      const colour = colourOf(item.name || "?");
      const shape = s("path", { d: pathOf(item.rings), fill: colour, "fill-opacity": 0.28, "fill-rule": "evenodd", stroke: colour,
        "stroke-width": 2 * scale, "data-kind": kind, "data-index": index, ...extra });
      shape.append(s("title", {}, item.name || "?"));
      return shape;
    };
    this.shapes.replaceChildren(
      ...drafts.map((item, i) => path(item, i, "draft", { "stroke-dasharray": `${5 * scale} ${4 * scale}`, "fill-opacity": 0.1 })),
      ...objects.map((item, i) => path(item, i, "object", i === selected ? { "stroke-width": 4 * scale } : {})));
    if (current?.rings) {
      const d = pathOf(current.rings);
      this.shapes.append(
        s("path", { d, fill: "#ffd34d", "fill-opacity": 0.3, "fill-rule": "evenodd", stroke: "#10151d", "stroke-width": 4.5 * scale }),
        s("path", { d, fill: "none", stroke: "#ffd34d", "stroke-width": 2.2 * scale, id: "current" }));
    }
    this.#drawMarks(current);
  }

  #drawMarks(current) {
    const scale = this.#pixel();
    const mark = ({ x, y, foreground }) => s("g", {},
      s("circle", { cx: x, cy: y, r: 6 * scale, fill: foreground ? "#0b7a4b" : "#b3261e", stroke: "#fff", "stroke-width": 1.5 * scale }),
      s("path", { d: `M${x - 3 * scale} ${y}h${6 * scale}` + (foreground ? `M${x} ${y - 3 * scale}v${6 * scale}` : ""), stroke: "#fff",
        "stroke-width": 1.6 * scale }));
    const parts = (current?.clicks ?? []).map(mark);
    if (current?.box) parts.push(this.#rectangle(current.box));
    if (this.drawn) parts.push(this.drawn);
    if (this.cursor) {
      const { x, y } = this.cursor;
      const d = `M${x - 12 * scale} ${y}h${24 * scale}M${x} ${y - 12 * scale}v${24 * scale}`;
      parts.push(s("path", { d, stroke: "#10151d", "stroke-width": 4 * scale }),
        s("path", { d, stroke: "#ffd34d", "stroke-width": 2 * scale }));
    }
    this.marks.replaceChildren(...parts);
    this.current = current;
  }

  #rectangle([x, y, width, height]) {
    const scale = this.#pixel();
    return s("rect", { x, y, width, height, fill: "none", stroke: "#fff", "stroke-width": 2 * scale, "stroke-dasharray": `${6 * scale} ${4 * scale}` });
  }

  zoom(factor, about) {
    const { view, size } = this;
    const centre = about ?? this.cursor ?? { x: view.x + view.width / 2, y: view.y + view.height / 2 };
    const width = Math.min(size.width, Math.max(16, view.width / factor));
    const ratio = width / view.width;
    const height = Math.min(size.height, view.height * ratio);
    this.view = { width, height, x: centre.x - (centre.x - view.x) * ratio, y: centre.y - (centre.y - view.y) * ratio };
    this.#apply();
  }

  whole() {
    this.view = { x: 0, y: 0, width: this.size.width, height: this.size.height };
    this.#apply();
  }

  step(dx, dy, fast) {
    const { view } = this;
    const length = STEP * view.width * (fast ? 5 : 1);
    const from = this.cursor ?? { x: view.x + view.width / 2, y: view.y + view.height / 2 };
    this.cursor = {
      x: Math.min(this.size.width - 0.5, Math.max(0.5, from.x + dx * length)),
      y: Math.min(this.size.height - 0.5, Math.max(0.5, from.y + dy * length)),
    };
    const beyond = (value, start, length_) => (value < start ? value - start : value > start + length_ ? value - start - length_ : 0);
    this.view.x += beyond(this.cursor.x, view.x, view.width);
    this.view.y += beyond(this.cursor.y, view.y, view.height);
    this.#apply();
  }

  press(foreground) {
    if (!this.cursor) this.step(0, 0);
    else this.on.click(this.cursor.x, this.cursor.y, foreground);
  }

  wait(text) {
    this.busy.textContent = text ?? "";
    this.busy.hidden = !text;
  }

  #apply() {
    const { view, size } = this;
    view.x = Math.min(size.width - view.width, Math.max(0, view.x));
    view.y = Math.min(size.height - view.height, Math.max(0, view.y));
    this.svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
    if (this.large && view.width < size.width / 2) {
      this.image.setAttribute("href", this.large);
      this.large = null;
    }
    this.on.zoomed?.();
  }

  // Image pixels per screen pixel.
  #pixel() {
    const width = this.svg.clientWidth || 800;
    const height = this.svg.clientHeight || 600;
    return Math.max(this.view.width / width, this.view.height / height);
  }

  #at(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    return { x: point.x, y: point.y };
  }

  #down(event) {
    if (event.button > 2) return;
    this.svg.focus({ preventScroll: true });
    this.svg.setPointerCapture(event.pointerId);
    this.start = { ...this.#at(event), left: event.clientX, top: event.clientY, button: event.button, points: [], view: { ...this.view } };
    this.cursor = null;
  }

  #move(event) {
    const { start } = this;
    if (!start) return;
    if (!start.dragged && Math.hypot(event.clientX - start.left, event.clientY - start.top) < DRAG) return;
    start.dragged = true;
    if (start.button === 1 || event.shiftKey) {
      const scale = this.#pixel();
      this.view.x = start.view.x - (event.clientX - start.left) * scale;
      this.view.y = start.view.y - (event.clientY - start.top) * scale;
      start.panned = true;
      this.#apply();
      return;
    }
    const { x, y } = this.#at(event);
    if (this.mode === "add" || this.mode === "remove") {
      start.points.push(x, y);
      this.drawn = s("path", { d: `M${start.x} ${start.y}L${start.points.join(" ")}`, fill: "none", stroke: this.mode === "add" ? "#4dd79a" : "#ff8a80",
        "stroke-width": 2.5 * this.#pixel() });
    } else this.drawn = this.#rectangle(boxOf(start, { x, y }));
    this.#drawMarks(this.current);
  }

  #up(event) {
    const { start } = this;
    if (!start) return;
    const end = this.#at(event);
    this.#end();
    if (start.panned) return;
    if (start.dragged && start.points.length >= 6) this.on.area([start.x, start.y, ...start.points].map(round), this.mode === "add");
    else if (start.dragged && this.mode !== "add" && this.mode !== "remove") this.on.box(this.#within(boxOf(start, end)));
    else if (!start.dragged && start.button !== 1) this.#click(end, start.button, event);
  }

  #click({ x, y }, button, event) {
    if (x < 0 || y < 0 || x >= this.size.width || y >= this.size.height) return;
    const shape = document.elementsFromPoint(event.clientX, event.clientY).find((element) => element.dataset?.kind);
    if (button === 0 && this.mode === "click" && shape && this.on.pick(shape.dataset.kind, Number(shape.dataset.index))) return;
    this.on.click(round(x), round(y), button === 0 && this.mode !== "background");
  }

  #within([x, y, width, height]) {
    const left = Math.max(0, x);
    const top = Math.max(0, y);
    return [left, top, Math.min(this.size.width, x + width) - left, Math.min(this.size.height, y + height) - top].map(round);
  }

  #end() {
    this.start = null;
    this.drawn = null;
    this.#drawMarks(this.current);
  }

  #wheel(event) {
    event.preventDefault();
    this.zoom(event.deltaY < 0 ? 1.25 : 0.8, this.#at(event));
  }
}

const round = (value) => Math.round(value * 10) / 10;
const boxOf = (a, b) => [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.abs(a.x - b.x), Math.abs(a.y - b.y)];
