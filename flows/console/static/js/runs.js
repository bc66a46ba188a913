// The run: start, follow, cancel; the sessions of the workspace.

import { del, get, post } from "./api.js";
import { alertBox, badge, field, h, show } from "./dom.js";
import { t } from "./i18n.js";

const POLL = 1000;

export async function runs(context) {
  const path = `${context.base}/run`;
  const box = h("div", { id: "run" });
  let timer = null;
  let alive = true;

  function draw(run) {
    const why = h("input", { maxlength: 1000, id: "why" });
    const going = run.state === "running";
    const start = async (event) => {
      event.preventDefault();
      draw(await post(path, { why: why.value }));
    };
    const controls = going
      ? context.may("operator") && h("button", { class: "danger", onclick: async () => draw(await del(path)) }, t("run.cancel"))
      : context.may("operator") && h("form", { class: "row", onsubmit: start }, field(t("run.why"), why), h("button", { class: "primary" }, t("run.start")));
    const last = run.last;
    box.replaceChildren(...[
      controls,
      run.state && h("section", {}, h("h2", {}, t("run.title"), " ", badge(run.state, t(`run.${run.state}`))),
        h("p", { class: "note" }, t("run.by", { who: run.who, why: run.why || "–", seconds: Math.round(run.seconds) })),
        run.stages?.length > 0 && h("ol", { class: "stages", "aria-label": t("run.stages") },
          run.stages.map((stage, i) => h("li", {}, badge(going && i === run.stages.length - 1 ? "running" : "done", stage)))),
        run.progress && progress(run.progress),
        run.whole && whole(run.whole),
        run.error && alertBox(run.error),
        h("details", { open: going }, h("summary", {}, t("run.lines")), h("pre", { tabindex: 0, "aria-label": t("run.lines") }, run.lines.join("\n")))),
      last && h("section", {}, h("h2", {}, t("run.last"), " ", badge(last.outcome, t(`run.${last.outcome}`))),
        h("p", { class: "note" }, t("run.lastBy", { who: last.who, at: when(last.started), why: last.why || "–" })),
        last.error && alertBox(last.error),
        last.stages?.length > 0 && h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {},
          ["stage", "how", "seconds"].map((k) => h("th", { scope: "col", class: k === "seconds" && "num" }, t(`run.${k}`))))),
        h("tbody", {}, last.stages.map((stage) => h("tr", {}, h("td", { class: "words" }, stage.stage), h("td", {}, t(`run.${stage.how}`)), h("td", { class: "num" }, stage.seconds.toFixed(1)))))))),
      h("section", {}, h("h2", {}, t("run.sessions")), h("ul", {}, run.sessions.map((session, i) => h("li", {}, h("strong", {}, session.name), ": ",
        session.background ? t("run.background") : session.classes.join(", "), " ",
        context.may("operator") && i > 0 && i === run.sessions.length - 1 && h("button", { onclick: () => remove(session.name) }, t("run.remove")))))),
    ].filter(Boolean));
    clearTimeout(timer);
    if (going && alive) timer = setTimeout(poll, POLL);
  }

  async function remove(name) {
    draw(await del(`${context.base}/sessions/${encodeURIComponent(name)}`));
  }

  async function poll() {
    const run = await get(path);
    if (alive) draw(run);
  }

  show(h("h1", {}, t("section.runs")), box);
  draw(await get(path));
  return () => {
    alive = false;
    clearTimeout(timer);
  };
}

function progress({ work, done, total, unit, rate, left }) {
  const text = `${work}: ${done}/${total} ${unit}` + (rate ? `, ${rate}/s` : "") + (left === null ? "" : `, ${t("run.left", { left })}`);
  return h("div", {}, h("progress", { max: total, value: done, "aria-label": work }), h("p", { class: "note" }, text));
}

// The time left of all stages, by what they took when they ran last; a stage that never ran has no known time.
function whole({ seconds, known, unknown }) {
  const text = known.length ? t(unknown.length ? "run.atLeast" : "run.about", { left: duration(seconds) }) : t("run.unknown");
  return h("p", { id: "whole" }, h("strong", {}, text), " ", h("span", { class: "note" }, t("run.estimate"), " ",
    unknown.length > 0 && t("run.never", { stages: unknown.join(", ") })));
}

function duration(seconds) {
  if (seconds < 90) return t("run.s", { n: Math.round(seconds) });
  if (seconds < 5400) return t("run.min", { n: Math.round(seconds / 60) });
  return t("run.h", { n: (seconds / 3600).toFixed(1) });
}

export const when = (iso) => (iso ? new Date(iso).toLocaleString(document.documentElement.lang, { dateStyle: "short", timeStyle: "short" }) : "–");
