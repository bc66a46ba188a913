// Try one or two versions on an image.

import { get, post } from "./api.js";
import { alertBox, field, h, show } from "./dom.js";
import { t } from "./i18n.js";

export async function trial(context) {
  const found = await get(`${context.base}/versions`);
  const numbers = found.versions.map((version) => version.version);
  const choice = (id, preferred) => h("select", { id }, numbers.map((n) => h("option", { value: n, selected: n === preferred },
    `${found.line}/${n}${n === found.live ? ` (${t("versions.live")})` : ""}`)));
  const first = choice("first", found.live ?? numbers[1] ?? numbers[0]);
  const second = choice("second", numbers.find((n) => String(n) !== first.value) ?? numbers[0]);
  const results = h("div", { class: "pair", id: "results", "aria-live": "polite" });
  let file = null;

  async function run() {
    if (!file) return;
    results.replaceChildren(h("p", {}, t("try.working")));
    const form = new FormData();
    form.append("image", file);
    for (const version of new Set([first.value, second.value])) form.append("versions", version);
    try {
      const trials = await post(`${context.base}/try`, form);
      results.replaceChildren(...trials.map(side));
    } catch (error) {
      results.replaceChildren(alertBox(error.message));
    }
  }

  const side = (one) => h("section", {}, h("h2", {}, `${found.line}/${one.version}`), h("img", { src: one.drawing, alt: t("try.alt", { version: one.version, n: one.found.length }) }),
    one.found.length ? h("ul", {}, one.found.map((object) => h("li", {}, `${object.name} ${object.score.toFixed(2)}`))) : h("p", {}, t("try.nothing")));
  const input = h("input", { type: "file", accept: "image/*", id: "file", onchange: () => {
    [file] = input.files;
    run();
  } });
  const drop = h("div", { class: "drop" }, h("p", {}, t("try.drop")), field(t("try.file"), input));
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    [file] = event.dataTransfer.files;
    run();
  });
  [first, second].forEach((select) => select.addEventListener("change", run));
  show(h("h1", {}, t("section.try")), h("p", { class: "note" }, t("try.note")),
    numbers.length ? h("section", {}, h("div", { class: "row" }, field(t("try.first"), first), field(t("try.second"), second)), h("p", {}), drop) : h("p", {}, t("versions.none")), results);
}
