// Enter, choose a workspace and a section, show its page.

import { Refusal, call, get, stopReading } from "./api.js";
import { alertBox, field, h, say, show } from "./dom.js";
import { editor } from "./editor.js";
import { grid, sets } from "./grid.js";
import { chosen, load, t } from "./i18n.js";
import { point } from "./point.js";
import { review } from "./review.js";
import { runs } from "./runs.js";
import { trial } from "./trial.js";
import { versions } from "./versions.js";

const SECTIONS = ["label", "review", "runs", "versions", "point", "try"];
const PAGES = { review, runs, versions, point, try: trial };
let me = null;
let leave = null;
let routing = Promise.resolve();
let turn = 0;

export const may = (role) => me.roles.includes(role);

function frame(section, workspace) {
  document.querySelectorAll("[data-t]").forEach((e) => (e.textContent = t(e.dataset.t)));
  document.querySelectorAll("[data-label]").forEach((e) => e.setAttribute("aria-label", t(e.dataset.label)));
  const chooser = document.getElementById("workspace");
  chooser.replaceChildren(...me.workspaces.map((w) => h("option", { value: w.id, selected: w.id === workspace }, w.line)));
  document.getElementById("person").textContent = t("person", { name: me.name, role: t(`role.${me.role}`) });
  const links = SECTIONS.map((name) =>
    h("a", { href: `#/${workspace}/${name}`, "aria-current": name === section && "page" }, t(`section.${name}`)));
  document.getElementById("nav").replaceChildren(...links);
}

// One page after the other: what a page still fetches must not appear on the next one. The address changes a moment
// before its event arrives.
function route() {
  const mine = ++turn;
  const address = location.hash;
  const current = () => mine === turn && location.hash === address;
  stopReading();
  routing = routing.then(() => mine === turn && draw(current));
  return routing;
}

async function draw(current) {
  const [, number, section = "label", set, image, item] = location.hash.split("/").map(decodeURIComponent);
  const workspace = me.workspaces.find((w) => w.id === Number(number))?.id ?? me.workspaces[0].id;
  leave?.();
  leave = null;
  frame(section, workspace);
  const view = document.getElementById("view");
  view.classList.toggle("wide", section === "label" && Boolean(image));
  document.title = `${t(`section.${SECTIONS.includes(section) ? section : "label"}`)} · samif`;
  try {
    const base = `/workspaces/${workspace}`;
    const context = { workspace, base, may, current, again: route };
    if (section in PAGES) leave = await PAGES[section](context);
    else if (image) leave = await editor(context, set, image, item);
    else if (set) leave = await grid(context, set);
    else leave = await sets(context);
  } catch (error) {
    if (current()) failed(error);
  }
}

function failed(error) {
  if (error instanceof Refusal && error.status === 401) enter();
  else show(alertBox(error.message));
}

function enter(message) {
  const input = h("input", { type: "password", autocomplete: "current-password", required: true, id: "token" });
  const submit = async (event) => {
    event.preventDefault();
    await open(input.value.trim());
  };
  show(h("form", { class: "enter", onsubmit: submit }, h("h1", {}, t("enter.title")), h("p", { class: "note" }, t("enter.note")),
    message && alertBox(message), field(t("enter.token"), input), h("p", {}), h("button", { class: "primary" }, t("enter.open"))));
  input.focus();
}

async function open(token) {
  try {
    await call("POST", "/session", { token });
    await start();
  } catch (error) {
    enter(error.message);
  }
}

async function start() {
  try {
    me = await get("/me");
  } catch (error) {
    failed(error);
    return;
  }
  if (!location.hash.startsWith("#/")) history.replaceState(null, "", `#/${me.workspaces[0].id}/label`);
  await route();
}

document.getElementById("workspace").addEventListener("change", (event) => (location.hash = `#/${event.target.value}/label`));
document.getElementById("language").addEventListener("change", async (event) => {
  await load(event.target.value);
  if (me) await route();
});
addEventListener("hashchange", () => me && route());
addEventListener("unhandledrejection", (event) => event.reason?.name !== "AbortError" && say(event.reason?.message ?? String(event.reason), true));

await load(chosen());
document.getElementById("language").value = document.documentElement.lang;
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  history.replaceState(null, "", location.pathname);
  await open(given);
} else await start();
