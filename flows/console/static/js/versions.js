// Versions: what is live, the comparison with its verdict, promotion with reason and approval, rollback.

import { del, get, post, query } from "./api.js";
import { alertBox, badge, field, h, say, show } from "./dom.js";
import { t } from "./i18n.js";
import { when } from "./runs.js";

const number = (value) => (value === null || value === undefined ? "–" : value.toFixed(1));

export async function versions(context) {
  const path = `${context.base}/versions`;
  const found = await get(path);
  const panel = h("div", { id: "panel" });

  const row = (v) => h("tr", {},
    h("td", {}, h("strong", {}, `${found.line}/${v.version}`), " ", v.version === found.live && badge("live", t("versions.live")),
      v.aliases.filter((alias) => alias !== "champion").map((alias) => [" ", badge("", alias)]), v.canary && h("div", {}, v.canary)),
    h("td", { class: "words" }, v.session), h("td", { class: "num" }, v.classes),
    ["base", "novel", "all"].map((group) => h("td", { class: "num" }, number(v.ap50?.[group]))), h("td", {}, when(v.created)),
    h("td", {}, v.version !== found.live && h("button", { onclick: () => examine(v.version) }, t(found.live ? "versions.compare" : "versions.look"))));

  async function examine(version) {
    let compared = null;
    panel.replaceChildren(h("section", {}, h("p", { role: "status" }, t("versions.comparing"))));
    if (found.live !== null) {
      try {
        compared = await post(`${path}/compare`, { before: found.live, after: version });
      } catch (error) {
        panel.replaceChildren(alertBox(error.message));
        return;
      }
    }
    const why = h("input", { maxlength: 1000, id: "why", size: 40 });
    const refusal = h("div", { id: "refusal" });
    const act = (name, body) => async () => {
      refusal.replaceChildren();
      try {
        const done = await post(`${path}/${name}`, { version, why: why.value, verdict: compared?.digest ?? "", ...body() });
        say(name === "promote" ? t("versions.promoted", { version: done.live }) : t("versions.asked"));
        context.again();
      } catch (error) {
        refusal.replaceChildren(alertBox(error.message));
        refusal.dataset.about = error.message;
      }
    };
    const checks = compared?.checks ?? [];
    panel.replaceChildren(h("section", { "aria-labelledby": "examined" },
      h("h2", { id: "examined" }, compared ? t("versions.against", { after: compared.after, before: compared.before }) : t("versions.first", { version }), " ",
        compared && badge(compared.outcome, t(`verdict.${compared.outcome}`))),
      compared && h("p", {}, compared.headline),
      checks.length > 0 && h("details", {}, h("summary", {}, t("versions.checks", { n: checks.length })), h("ul", {}, checks.map((check) =>
        h("li", {}, badge(check.outcome, t(`check.${check.outcome}`)), " ", check.name, check.subject ? ` (${check.subject})` : "", check.reason ? `: ${check.reason}` : "")))),
      context.may("operator") && h("div", { class: "row" }, field(t("versions.why"), why),
        h("button", { class: "primary", onclick: act("promote", () => ({})) }, t("versions.promote")),
        context.may("approver") && h("button", { onclick: act("promote", () => ({ approve: true })) }, t("versions.approveOwn")),
        compared && h("button", { onclick: act("requests", () => ({ about: (refusal.dataset.about ?? compared.headline).slice(0, 4000) })) }, t("versions.ask"))),
      refusal,
      compared && h("iframe", { src: `/api${path}/page?${query({ before: found.live, after: version })}`, title: t("versions.page"), sandbox: "" })));
    panel.scrollIntoView({ block: "nearest" });
  }

  const decide = (request, action) => async () => {
    try {
      if (action === "approve") say(t("versions.promoted", { version: (await post(`${path}/requests/${request.id}/approve`)).live }));
      else await del(`${path}/requests/${request.id}`);
      context.again();
    } catch (error) {
      panel.replaceChildren(alertBox(error.message));
    }
  };
  const waiting = found.requests.length > 0 && h("section", { id: "requests" }, h("h2", {}, t("versions.waiting")), found.requests.map((request) =>
    h("div", { class: "row middle" }, badge("waiting", `${found.line}/${request.version}`), h("span", {}, t("versions.askedBy", { who: request.who, at: when(request.at), why: request.why || "–" })),
      h("span", { class: "note" }, request.about),
      h("button", { onclick: () => examine(request.version) }, t("versions.compare")),
      context.may("approver") && h("button", { class: "primary", onclick: decide(request, "approve") }, t("versions.approve")),
      context.may("operator") && h("button", { onclick: decide(request, "withdraw") }, t("versions.withdraw")))));

  const back = h("input", { maxlength: 1000, id: "back-why", size: 30 });
  const rollback = async (event) => {
    event.preventDefault();
    try {
      const done = await post(`${path}/rollback`, { why: back.value });
      say(t("versions.restored", { version: done.live }));
      context.again();
    } catch (error) {
      panel.replaceChildren(alertBox(error.message));
    }
  };
  const numbers = ["classes", "base", "novel", "everything"];
  const head = (keys) => h("thead", {}, h("tr", {}, keys.map((k) => (k ? h("th", { scope: "col", class: numbers.includes(k) && "num" }, t(`versions.${k}`)) : h("td", {})))));
  const term = (one) => h("tr", {}, h("td", {}, when(one.since)), h("td", {}, one.until ? when(one.until) : t("versions.now")), h("td", { class: "num" }, one.version),
    h("td", {}, t(`how.${one.how}`)), h("td", { class: "words" }, one.who, one.approved_by && t("versions.approvedBy", { who: one.approved_by })), h("td", { class: "words" }, one.why || "–"));
  show(h("h1", {}, t("section.versions")),
    h("p", { class: "note" }, found.live === null ? t("versions.nothing") : t("versions.isLive", { version: `${found.line}/${found.live}` })),
    found.versions.length === 0 && h("p", {}, t("versions.none")),
    waiting,
    found.versions.length > 0 && h("section", {}, h("h2", {}, t("versions.all")), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("versions.all") }, h("table", {},
      head(["version", "session", "classes", "base", "novel", "everything", "created", ""]), h("tbody", { id: "versions" }, found.versions.map(row))))),
    panel,
    found.previous !== null && context.may("operator") && h("section", {}, h("h2", {}, t("versions.back", { version: `${found.line}/${found.previous}` })),
      h("form", { class: "row", id: "rollback", onsubmit: rollback }, field(t("versions.why"), back), h("button", { class: "danger" }, t("versions.rollback")))),
    found.history.length > 0 && h("section", {}, h("h2", {}, t("versions.history")), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("versions.history") }, h("table", {},
      head(["since", "until", "version", "how", "by", "reason"]), h("tbody", { id: "history" }, found.history.map(term))))));
}
