// The queue of errors, disagreements and alarms: decide about each, and make sessions of what was decided.

import { del, get, post, query } from "./api.js";
import { alertBox, badge, field, h, say, show } from "./dom.js";
import { t } from "./i18n.js";
import { when } from "./runs.js";
import { teachForm } from "./teach.js";

const KEYS = { accept: "a", fix: "f", never: "v" };
const KINDS = ["alarm", "disagreement", "error"];

export async function review(context) {
  const path = `${context.base}/review`;
  const run = await get(`${context.base}/run`);
  const kept = new URLSearchParams(sessionStorage.getItem("samif-review") ?? "");
  const session = run.sessions.find((one) => one.name === kept.get("session"))?.name ?? run.sessions.at(-1).name;
  const decided = kept.get("decided") === "true";
  const found = await get(`${path}?${query({ session, decided })}`);
  const keep = (more) => {
    sessionStorage.setItem("samif-review", query({ session, decided, ...more }));
    context.again();
  };

  const item = (id) => `${path}/${encodeURIComponent(id)}`;
  const cards = new Map();
  const left = h("p", { class: "note", id: "left", role: "status" });
  const drafts = h("div", {});

  async function decide(one, decision) {
    if (!one.decisions.includes(decision) || one.busy) return;
    one.busy = true;
    try {
      const done = await post(`${item(one.id)}/decision`, { decision });
      if (decision === "fix") {
        location.hash = `#/${context.workspace}/label/${encodeURIComponent(done.set)}/${encodeURIComponent(done.image)}/${encodeURIComponent(one.id)}`;
        return;
      }
      await gone(one);
    } catch (error) {
      say(error.message, true);
    } finally {
      one.busy = false;
    }
  }

  async function putBack(one) {
    await del(`${item(one.id)}/decision`);
    await gone(one);
  }

  // The card goes, the next one gets the keyboard; counts and drafts are read again.
  async function gone(one) {
    const card = cards.get(one.id);
    const all = [...cards.values()];
    const next = all[all.indexOf(card) + 1] ?? all[all.indexOf(card) - 1];
    cards.delete(one.id);
    const group = card.closest("section");
    card.remove();
    const rest = group.querySelectorAll(".crop").length;
    if (!rest) group.remove();
    group.querySelector(".count").textContent = rest;
    next?.focus();
    const now = await get(`${path}?${query({ session, decided })}`);
    if (context.current()) draw(now);
  }

  function draw(now) {
    left.textContent = t(decided ? "review.decidedCount" : "review.count", { n: now.items.length });
    const made = (done) => {
      say(t("review.made", { name: done.session, n: done.objects }));
      location.hash = `#/${context.workspace}/runs`;
    };
    const open = new Set([...drafts.querySelectorAll("details[open]")].map((one) => one.id));
    drafts.replaceChildren(...["shots", "background"].filter((use) => now.drafts[use].images > 0).map((use) => {
      const draft = now.drafts[use];
      const labels = h("a", { href: `#/${context.workspace}/label/${encodeURIComponent(draft.set)}` }, t("review.look"));
      const counts = h("p", {}, t(`review.${use}Draft`, { n: draft.objects, images: draft.images }), " ", labels);
      return h("section", { id: `draft-${use}` }, h("h2", {}, t(`review.${use}`)), counts,
        context.may("operator") && draft.objects > 0 && teachForm({
          id: `teach-${use}`, open: open.has(`teach-${use}`), use, classes: draft.classes,
          send: (body) => post(`${path}/session`, { ...body, use }), done: made }));
    }));
  }

  const texts = (one) => {
    if (one.kind === "alarm") return alarmText(one);
    if (one.kind === "disagreement") return t(`differs.${one.cause}`, { champion: one.name ?? "–", challenger: one.label ?? "–" });
    if (one.name && one.label) return t("review.insteadOf", { name: one.name, label: one.label });
    return one.name ?? t("review.notNamed", { label: one.label });
  };
  const button = (one, decision) => h("button", {
    "data-decision": decision, disabled: !one.decisions.includes(decision), onclick: () => decide(one, decision),
    title: decision === "accept" && one.accepted ? t("review.learn", { name: one.accepted }) : null },
  h("kbd", {}, KEYS[decision].toUpperCase()), " ",
  decision === "accept" && one.kind === "alarm" ? t("review.seen") : decision === "accept" && one.accepted ? t("review.learn", { name: one.accepted }) : t(`review.${decision}`));
  const card = (one) => {
    const element = h("div", { class: "crop", tabindex: 0, role: "group", "aria-label": `${texts(one)}, ${one.image}`, "data-item": one.id },
      one.crop && h("img", { src: `/api${item(one.id)}/crop`, loading: "lazy", alt: "" }),
      h("div", {}, one.over && [badge("done", t("review.over")), " "], texts(one), one.score === null ? "" : ` ${one.score.toFixed(2)}`),
      h("div", { class: "note" }, one.kind === "error" ? one.image : [one.at && when(one.at), " ", one.kind === "alarm" && one.level !== null ? one.image : one.sentence]),
      one.decided
        ? h("div", { class: "row middle" }, badge("", t("review.wasDecided", { decision: t(`review.${one.decided.decision}`), who: one.decided.who })),
          context.may("labeller") && h("button", { onclick: () => putBack(one) }, t("review.putBack")))
        : context.may("labeller") && h("div", { class: "decide" }, ["accept", "fix", "never"].map((decision) => button(one, decision))));
    cards.set(one.id, element);
    return element;
  };
  const heading = (text, items) => h("h2", {}, text, " (", h("span", { class: "count" }, items.length), ")");
  const groups = KINDS.flatMap((kind) => {
    const ofKind = found.items.filter((one) => one.kind === kind);
    if (kind !== "error") {
      return ofKind.length ? [h("section", { "data-kind": kind }, heading(t(`review.${kind}s`), ofKind), h("p", { class: "note" }, t(`review.${kind}Note`)), h("div", { class: "crops" }, ofKind.map(card)))] : [];
    }
    return [...new Set(ofKind.map((one) => one.cause))].map((cause) => {
      const same = ofKind.filter((one) => one.cause === cause);
      return h("section", { "data-kind": kind }, heading(t(`cause.${cause}`), same), h("p", { class: "note" }, t(`meaning.${cause}`)), h("div", { class: "crops" }, same.map(card)));
    });
  });

  function onkey(event) {
    if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = [...cards.values()];
    const at = all.indexOf(document.activeElement?.closest(".crop"));
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const decision = Object.keys(KEYS).find((name) => KEYS[name] === event.key.toLowerCase());
    if (step && all.length) all[Math.min(all.length - 1, Math.max(0, at < 0 ? 0 : at + step))].focus();
    else if (decision && at >= 0 && !decided) {
      const id = all[at].dataset.item;
      if (context.may("labeller")) decide(found.items.find((one) => one.id === id), decision);
    } else return;
    event.preventDefault();
  }

  const select = h("select", { id: "session-of", onchange: () => keep({ session: select.value }) },
    run.sessions.map((one) => h("option", { value: one.name, selected: one.name === session }, one.name)));
  const toggle = h("input", { type: "checkbox", id: "decided", checked: decided, onchange: () => keep({ decided: toggle.checked }) });
  show(h("h1", {}, t("section.review")),
    h("div", { class: "row" }, field(t("review.of"), select), h("label", {}, toggle, t("review.decided"))),
    h("p", { class: "note" }, t("review.note")), left,
    ...found.problems.map((problem) => h("p", { class: "warn" }, problem)), drafts, ...groups);
  draw(found);
  document.addEventListener("keydown", onkey);
  return () => document.removeEventListener("keydown", onkey);
}

function alarmText({ cause, side, level, limit }) {
  const [family, ...name] = cause.split(" ");
  const what = t(`alarm.${family}`, { name: name.join(" ") });
  if (level === null) return what;
  const digits = ["embedding", "uncertainty"].includes(family) ? 1 : 2;
  const text = (value) => (family === "background" ? `${Math.round(100 * value)} %` : value.toFixed(digits));
  return t(`alarm.${side}`, { what, level: text(level), limit: text(limit) });
}
