// The form of a session that learns from labels.

import { alertBox, field, h } from "./dom.js";
import { t } from "./i18n.js";

// options: {id, open, use, classes, send(body), done(answer)}; background samples need no classes and no shots.
export function teachForm({ id, open, use, classes, send, done }) {
  const boxes = use === "background" ? [] : classes.map((c) => h("label", { class: "row middle" },
    h("input", { type: "checkbox", value: c.name, checked: !c.known }), `${c.name} (${c.objects})`));
  const name = h("input", { required: true, pattern: "[A-Za-z0-9][A-Za-z0-9_\\-]*", maxlength: 63 });
  const most = Math.min(5, ...classes.filter((c) => !c.known).map((c) => c.objects));
  const shots = h("input", { type: "number", min: 1, max: 10000, value: most, required: true });
  const why = h("input", { maxlength: 1000 });
  const refusal = h("div", {});
  const submit = async (event) => {
    event.preventDefault();
    const chosen = boxes.map((box) => box.querySelector("input")).filter((box) => box.checked).map((box) => box.value);
    const body = { name: name.value, run: event.submitter?.value === "run", why: why.value };
    if (use !== "background") Object.assign(body, { classes: chosen, shots: Number(shots.value) });
    try {
      done(await send(body));
    } catch (error) {
      refusal.replaceChildren(alertBox(error.message));
    }
  };
  return h("details", { id, open }, h("summary", {}, t("teach.title")), h("form", { onsubmit: submit },
    h("p", { class: "note" }, t(use === "background" ? "teach.neverNote" : "teach.note")), boxes.length > 0 && h("div", { class: "row" }, boxes),
    h("div", { class: "row" }, field(t("teach.name"), name), use !== "background" && field(t("teach.shots"), shots), field(t("run.why"), why),
      h("button", { value: "session" }, t("teach.add")), h("button", { class: "primary", value: "run" }, t("teach.run"))), refusal));
}
