// The queue of errors: choose, and make a session of them.

import { get, post, query } from "./api.js";
import { alertBox, field, h, say, show } from "./dom.js";
import { t } from "./i18n.js";

export async function review(context) {
  const run = await get(`${context.base}/run`);
  const chosen = new URLSearchParams(sessionStorage.getItem("samif-review") ?? "").get("session");
  const wanted = run.sessions.some((session) => session.name === chosen) ? chosen : null;
  let found = null;
  let problem = null;
  try {
    found = await get(`${context.base}/errors?${query(wanted ? { session: wanted } : {})}`);
  } catch (error) {
    problem = error.message;
  }
  const select = h("select", { id: "session-of", onchange: () => {
    sessionStorage.setItem("samif-review", query({ session: select.value }));
    context.again();
  } }, run.sessions.map((session) => h("option", { value: session.name, selected: session.name === (found?.session ?? run.sessions.at(-1).name) }, session.name)));
  const boxes = [];
  const card = (error) => {
    const box = h("input", { type: "checkbox", value: error.id, disabled: !error.uses.length || !context.may("operator"), "data-uses": error.uses.join(" ") });
    boxes.push(box);
    const names = error.name && error.label ? t("review.insteadOf", { name: error.name, label: error.label }) : error.name ?? t("review.notNamed", { label: error.label });
    return h("label", { class: "crop" },
      h("img", { src: `/api${context.base}/errors/${error.id}/crop?${query({ session: found.session })}`, loading: "lazy", alt: "" }),
      box, names, error.score === null ? "" : ` ${error.score.toFixed(2)}`, h("br"), h("span", { class: "note" }, error.image));
  };
  const groups = found ? Object.keys(found.definitions).map((cause) => {
    const cases = found.errors.filter((error) => error.cause === cause);
    return cases.length > 0 && h("section", {}, h("h2", {}, `${t(`cause.${cause}`)} (${cases.length})`), h("p", { class: "note" }, t(`meaning.${cause}`)),
      h("div", { class: "crops" }, cases.map(card)));
  }) : [];
  const name = h("input", { required: true, maxlength: 63, pattern: "[A-Za-z0-9][A-Za-z0-9_\\-]*", id: "review-name" });
  const use = h("select", { id: "review-use" }, ["background", "shots"].map((value) => h("option", { value }, t(`review.${value}`))));
  const why = h("input", { maxlength: 1000, id: "review-why" });
  const refusal = h("div", {});
  const make = async (event) => {
    event.preventDefault();
    const ids = boxes.filter((box) => box.checked).map((box) => box.value);
    if (!ids.length) {
      refusal.replaceChildren(alertBox(t("review.choose")));
      return;
    }
    try {
      const starts = event.submitter?.value === "run";
      const done = await post(`${context.base}/errors/accept`, { ids, name: name.value, use: use.value, of: found.session, run: starts, why: why.value });
      say(t("review.made", { name: done.session, n: done.objects }));
      location.hash = `#/${context.workspace}/runs`;
    } catch (error) {
      refusal.replaceChildren(alertBox(error.message));
    }
  };
  show(h("h1", {}, t("section.review")), h("div", { class: "row" }, field(t("review.of"), select)),
    problem && alertBox(problem),
    found && h("p", { class: "note" }, t("review.count", { n: found.errors.length, images: found.images })),
    found && context.may("operator") && found.errors.length > 0 && h("form", { onsubmit: make, id: "accept" }, h("section", {}, h("h2", {}, t("review.session")),
      h("p", { class: "note" }, t("review.note")),
      h("div", { class: "row" }, field(t("teach.name"), name), field(t("review.as"), use), field(t("run.why"), why),
        h("button", { value: "session" }, t("review.make")), h("button", { class: "primary", value: "run" }, t("review.run"))), refusal)),
    ...groups);
}
