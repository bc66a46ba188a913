// Label one image: click, correct, name, accept; everything with the mouse, with touch or with the keyboard.

import { get, post, query } from "./api.js";
import { colourOf, h, s, say, show } from "./dom.js";
import { t } from "./i18n.js";
import { Labels } from "./labels.js";
import { Stage } from "./stage.js";

const UNKNOWN = "unknown";
const MODES = { click: "c", background: "b", box: "r", add: "a", remove: "x" };
const KEYS = ["click", "refine", "keyboard", "accept", "number", "name", "undo", "discard", "delete", "modes", "drafts", "never", "zoom", "pages", "done"];

// The order of a folder stays while its images are gone through, although labelled ones move to the end of the list.
let order = { folder: "", names: [] };

let lastName = ""; // proposed where no classifier proposes one

export function forgetOrder() {
  order = { folder: "", names: [] };
}

// With an item of the review: its mask is the current object, to be corrected; an image without one gets drafts.
export async function editor(context, set, name, item) {
  const folder = `${context.base}/sets/${encodeURIComponent(set)}`;
  const of = (what, more = {}) => `${folder}/${what}?${query({ name, ...more })}`;
  const [found, listed] = await Promise.all([get(of("labels")), get(`${folder}/images`)]);
  const writes = context.may("labeller");
  if (order.folder !== folder || !order.names.includes(name)) order = { folder, names: listed.images.map((image) => image.name) };
  const { names } = order;
  const place = names.indexOf(name);
  let current = null;
  let drafts = [];
  let selected = -1;
  let history = [];
  let queue = Promise.resolve();
  let sequence = 0;
  let alive = true;
  let ready = false;

  const labels = new Labels(of("labels"), found, {
    changed: () => draw(),
    saved: () => state(t("editor.saved")),
    merged: (who) => say(t("editor.merged", { who })),
    failed: (error) => (state(t("editor.failed")), say(error.message, true)),
  });
  const large = Math.max(found.width, found.height) > 1600 ? `/api${of("preview", { side: 8192 })}` : null;
  const stage = new Stage(found, `/api${of("preview")}`, large, t("editor.stage", { name }), {
    click, box, area, pick, zoomed: () => alive && ready && draw(),
  });
  const saved = h("span", { class: "note", id: "saved" });
  const list = h("ul", { class: "objects", id: "objects" });
  const proposals = h("div", { class: "names", id: "names" });
  const classes = h("datalist", { id: "classes" });
  const input = h("input", { list: "classes", id: "class-name", maxlength: 200, "aria-label": t("editor.name"), autocomplete: "off" });
  const modes = Object.keys(MODES).map((mode) => h("button", { "data-mode": mode, onclick: () => setMode(mode), title: MODES[mode].toUpperCase() }, t(`mode.${mode}`)));
  const refused = h("button", { onclick: () => never(), title: "V" }, t("editor.never"));
  const accepted = h("button", { class: "primary", onclick: () => accept() }, t("editor.accept"));

  function state(text) {
    saved.textContent = text;
  }

  function keep() {
    history.push({ objects: labels.objects, current: current && { ...current, clicks: [...current.clicks] }, drafts });
    if (history.length > 200) history.shift();
  }

  function undo() {
    const last = history.pop();
    if (!last) return;
    sequence += 1;
    current = last.current;
    drafts = last.drafts;
    selected = -1;
    // what was saved since has an id by now, which the older state must not lose
    if (last.objects !== labels.objects) labels.set(last.objects);
    draw();
  }

  function draw() {
    stage.draw(labels.objects, drafts, current, selected);
    list.replaceChildren(...labels.objects.map((object, i) => h("li", {},
      swatch(object.name), h("button", { class: "pick", "aria-pressed": i === selected ? "true" : "false", onclick: () => choose(i) }, object.name),
      writes && h("button", { "aria-label": t("editor.deleteOne", { name: object.name }), onclick: () => remove(i) }, "×"))));
    const shown = (current?.names ?? []).filter((found_) => found_.name !== UNKNOWN).slice(0, 5);
    const unknown = current?.names?.find((found_) => found_.name === UNKNOWN);
    proposals.replaceChildren(...shown.map((proposal, i) => h("button", { onclick: () => accept(proposal.name) },
      h("span", {}, h("kbd", {}, i + 1), " ", proposal.name), h("span", {}, `${Math.round(100 * proposal.probability)} %`))),
    current && unknown && h("p", { class: "note" }, t("editor.unknown", { p: Math.round(100 * unknown.probability) })) || "");
    accepted.disabled = refused.disabled = !current?.rle;
    input.placeholder = current && !shown.length ? lastName : "";
    stage.element.dataset.objects = labels.objects.length;
  }

  const swatch = (name_) => s("svg", { width: 14, height: 14, "aria-hidden": "true" }, s("rect", { width: 14, height: 14, rx: 4, fill: colourOf(name_) }));

  function setMode(mode) {
    stage.mode = mode;
    modes.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.mode === mode)));
  }

  function begin() {
    current ??= { clicks: [], box: null, rle: null, rings: null, names: [], part: null, own: null };
    selected = -1;
  }

  // Requests follow each other: each one takes the mask that the one before gave.
  function ask(make, waitFor) {
    const turn = ++sequence;
    queue = queue.then(async () => {
      if (!current || !alive) return;
      const started = performance.now();
      stage.wait(waitFor);
      try {
        const answer = await make(current);
        if (alive && current && answer) {
          Object.assign(current, answer);
          stage.element.dataset.ms = Math.round(performance.now() - started);
          if (turn === sequence && !document.activeElement?.matches("#class-name")) input.value = "";
          draw();
        }
      } catch (error) {
        say(error.message, true);
      } finally {
        stage.wait(null);
      }
    });
    return queue;
  }

  async function outline(state_) {
    const { clicks, box: box_, rle, part } = state_;
    const inside = part && clicks.every(({ x, y }) => x >= part[0] && y >= part[1] && x < part[0] + part[2] && y < part[1] + part[3]);
    const first = clicks.length + (box_ ? 1 : 0) === 1;
    const { rle: mask, rings, area: size, names: names_, part: better } = await post(of("outline"), {
      clicks, box: box_, before: first ? null : rle, part: inside ? part : null });
    return { rle: size ? mask : null, rings, names: names_, part: first || inside ? better : part };
  }

  // A small object is looked at again in its part of the image, which is embedded for that.
  async function sharpen({ clicks, box: box_, rle, part, own }) {
    if (!rle || !part || own || clicks.length + (box_ ? 1 : 0) !== 1) return null;
    const { rle: mask, rings, names: names_, part: better } = await post(of("outline"), { clicks, box: box_, before: rle, part, sharpen: true });
    return { rle: mask, rings, names: names_, part: better };
  }

  function prompt() {
    draw();
    const before = sequence + 1;
    ask(outline, null);
    queue.then(() => sequence === before && ask(sharpen, null));
  }

  function click(x, y, foreground) {
    if (!writes) return;
    if (!current?.rle && !current?.clicks?.length && !foreground) return;
    keep();
    begin();
    current.clicks = [...current.clicks, { x, y, foreground }];
    prompt();
  }

  function box(box_) {
    if (!writes || box_[2] < 2 || box_[3] < 2) return;
    keep();
    current = null;
    begin();
    current.box = box_;
    prompt();
  }

  function area(polygon, add) {
    if (!writes || (!add && !current?.rle)) return;
    keep();
    begin();
    ask(async (state_) => {
      const { rle, rings, names: names_, area: size } = await post(of("stroke"), { polygon, add, before: state_.rle });
      return { rle: size ? rle : null, rings, names: names_, own: true };
    });
  }

  // A draft or an object under a click becomes the current one, to be corrected; true where that happens.
  function pick(kind, index) {
    if (current || !writes) return false;
    if (kind === "draft") {
      keep();
      const draft = drafts[index];
      drafts = drafts.filter((_, i) => i !== index);
      current = { clicks: [], box: null, rle: draft.rle, rings: draft.rings, part: null, own: true,
        names: draft.name ? [{ name: draft.name, probability: draft.score }] : [] };
      draw();
    } else choose(index);
    return true;
  }

  function choose(index) {
    selected = selected === index ? -1 : index;
    draw();
  }

  function change() {
    const object = labels.objects[selected];
    if (!object || current || !writes) return;
    keep();
    current = { clicks: [], box: null, rle: object.rle, rings: object.rings, part: null, own: true, names: [{ name: object.name, probability: 1 }] };
    labels.set(labels.objects.filter((_, i) => i !== selected));
    selected = -1;
    draw();
  }

  function remove(index) {
    keep();
    selected = -1;
    labels.set(labels.objects.filter((_, i) => i !== index));
  }

  async function accept(given) {
    await queue;
    const typed = input.value.trim();
    const proposed = current?.names?.find((found_) => found_.name !== UNKNOWN)?.name;
    const label = given ?? (typed || proposed || lastName);
    if (!current?.rle) return;
    if (!label) {
      input.focus();
      say(t("editor.nameFirst"));
      return;
    }
    lastName = label;
    keep();
    const object = { name: label, rle: current.rle, rings: current.rings };
    current = null;
    input.value = "";
    if (![...classes.options].some((option) => option.value === label)) classes.append(h("option", { value: label }));
    state(t("editor.saving"));
    stage.svg.focus({ preventScroll: true });
    labels.set([...labels.objects, object]);
  }

  // The current object becomes a background sample, with a copy of the image.
  async function never() {
    await queue;
    if (!current?.rle || !writes) return;
    const called = input.value.trim() || current.names?.find((found_) => found_.name !== UNKNOWN)?.name || undefined;
    try {
      await post(of("never"), { rle: current.rle, name: called });
      keep();
      current = null;
      input.value = "";
      draw();
      say(t("editor.neverDone"));
    } catch (error) {
      say(error.message, true);
    }
  }

  function discard() {
    if (!current) return;
    keep();
    sequence += 1;
    current = null;
    draw();
  }

  async function findAll() {
    if (!writes) return;
    stage.wait(t("editor.finding"));
    try {
      const found_ = await post(of("drafts"));
      keep();
      drafts = found_;
      draw();
      say(t("editor.drafts", { n: drafts.length }));
    } finally {
      stage.wait(null);
    }
  }

  async function toFix() {
    const draft = await get(`${context.base}/review/${encodeURIComponent(item)}/draft`);
    if (!alive || current) return;
    if (!draft) {
      await findAll();
      return;
    }
    current = { clicks: [], box: null, rle: draft.rle, rings: draft.rings, part: null, own: true,
      names: draft.name ? [{ name: draft.name, probability: draft.score }] : [] };
    draw();
  }

  function acceptDrafts() {
    const named = drafts.filter((draft) => draft.name);
    if (!named.length) return;
    keep();
    drafts = drafts.filter((draft) => !draft.name);
    labels.set([...labels.objects, ...named.map(({ name: n, rle, rings }) => ({ name: n, rle, rings }))]);
  }

  async function turn(step) {
    await queue;
    await labels.saving;
    if (labels.error) return say(labels.error.message, true);
    const next = names[place + step];
    const to = next === undefined ? "" : `/${encodeURIComponent(next)}`;
    location.hash = `#/${context.workspace}/label/${encodeURIComponent(set)}${to}`;
  }

  async function done() {
    if (writes && !labels.revision && !labels.objects.length) await labels.touch();
    await turn(1);
  }

  function onkey(event) {
    if (document.querySelector("dialog[open]")) return;
    const typing = event.target.matches("input, select, textarea");
    if (typing) {
      if (event.key === "Enter" && event.target === input) accept(input.value.trim() || undefined);
      else if (event.key === "Escape") stage.svg.focus();
      else return;
      event.preventDefault();
      return;
    }
    const onButton = event.target.matches("button, a");
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if ((event.ctrlKey || event.metaKey) && pressed === "z") undo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (arrows[event.key] && !onButton) (stage.step(...arrows[event.key], event.shiftKey), draw());
    else if (event.key === " " && !onButton) stage.press(!event.shiftKey);
    else if (event.key === "Enter" && !onButton) (current ? accept() : change());
    else if (/^[1-5]$/.test(event.key)) {
      const proposal = (current?.names ?? []).filter((found_) => found_.name !== UNKNOWN)[Number(event.key) - 1];
      if (proposal) accept(proposal.name);
    } else if (pressed === "n") input.focus();
    else if (pressed === "z") undo();
    else if (event.key === "Escape") discard();
    else if (event.key === "Delete" || event.key === "Backspace") selected >= 0 && writes && remove(selected);
    else if (pressed === "e") findAll();
    else if (pressed === "v") never();
    else if (pressed === "+" || pressed === "=") stage.zoom(1.5);
    else if (pressed === "-") stage.zoom(1 / 1.5);
    else if (pressed === "0") stage.whole();
    else if (event.key === "PageDown") turn(1);
    else if (event.key === "PageUp") turn(-1);
    else if (pressed === "d") done();
    else if (pressed === "?") help.showModal();
    else {
      const mode = Object.keys(MODES).find((m) => MODES[m] === pressed);
      if (!mode) return;
      setMode(mode);
    }
    event.preventDefault();
  }

  const help = h("dialog", { "aria-label": t("editor.keys") }, h("h2", {}, t("editor.keys")),
    h("dl", { class: "keys" }, KEYS.map((k) => [h("dt", {}, h("kbd", {}, t(`key.${k}`))), h("dd", {}, t(`does.${k}`))])),
    h("p", {}), h("button", { onclick: () => help.close() }, t("close")));
  const tool = (label, action, title) => h("button", { onclick: action, title }, label);
  const tools = h("div", { class: "tools", role: "toolbar", "aria-label": t("editor.tools") },
    item ? h("a", { class: "button", href: `#/${context.workspace}/review` }, "‹ ", t("section.review"))
      : h("a", { class: "button", href: `#/${context.workspace}/label/${encodeURIComponent(set)}` }, "‹ ", t("editor.images")),
    tool("◀", () => turn(-1), t("editor.before")), h("span", { class: "note" }, `${place + 1} / ${names.length}`), tool("▶", () => turn(1), t("editor.next")),
    writes && [h("span", { class: "gap" }), modes, h("span", { class: "gap" }), tool(t("editor.undo"), undo, "Z"), tool(t("editor.everything"), findAll, "E")],
    tool("+", () => stage.zoom(1.5), t("editor.closer")), tool("−", () => stage.zoom(1 / 1.5), t("editor.farther")),
    tool("?", () => help.showModal(), t("editor.keys")));
  tools.querySelectorAll("button").forEach((button) => button.textContent.length < 3 && button.setAttribute("aria-label", button.title));
  const side = h("aside", { class: "side", "aria-label": t("editor.side") },
    writes && [h("h2", {}, t("editor.object")), proposals,
      h("div", { class: "row middle" }, input, accepted), classes,
      h("div", { class: "row" }, tool(t("editor.discard"), discard, "Esc"), tool(t("editor.acceptDrafts"), acceptDrafts, ""), refused)],
    h("h2", {}, t("editor.objects")), list, h("p", {}),
    h("div", { class: "row middle" }, writes && tool(t("editor.done"), done, "D"), writes && tool(t("editor.change"), change, "Enter"), saved));
  show(h("div", { class: "editor" }, h("div", { class: "left" }, tools, stage.element), side, help));
  classes.replaceChildren(...listed.classes.map((c) => h("option", { value: c.name })));
  setMode("click");
  ready = true;
  draw();
  document.addEventListener("keydown", onkey);
  stage.svg.focus({ preventScroll: true });
  if (writes) {
    stage.wait(t("editor.preparing"));
    post(of("ready")).then(() => (stage.element.dataset.ready = "yes", item && toFix()), (error) => say(error.message, true)).finally(() => {
      stage.wait(null);
      if (alive && names[place + 1]) post(`${folder}/ready?${query({ name: names[place + 1] })}`).catch(() => {});
    });
  }
  return () => {
    alive = false;
    document.removeEventListener("keydown", onkey);
  };
}
