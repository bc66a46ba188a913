// Folders of images, and the images of one folder.

import { get, post, query } from "./api.js";
import { alertBox, badge, field, h, say, show } from "./dom.js";
import { forgetOrder } from "./editor.js";
import { t } from "./i18n.js";

const FORMATS = ["coco", "yolo", "labelme", "voc", "via", "cvat", "label-studio", "masks"];

export async function sets(context) {
  const found = await get(`${context.base}/sets`);
  if (!context.current()) return;
  if (found.length === 1) {
    location.replace(`#/${context.workspace}/label/${encodeURIComponent(found[0].id)}`);
    return;
  }
  const rows = found.map((set) => h("tr", {},
    h("td", { class: "words" }, h("a", { href: `#/${context.workspace}/label/${encodeURIComponent(set.id)}` }, set.id)),
    h("td", { class: "words" }, set.folder), h("td", { class: "num" }, set.images ?? "–"),
    h("td", { class: "num" }, set.labelled), h("td", { class: "num" }, set.objects)));
  const heads = ["set", "folder", "images", "labelled", "objects"];
  show(h("h1", {}, t("section.label")),
    found.length ? h("section", {}, h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, heads.map((k, i) => h("th", { scope: "col", class: i > 1 && "num" }, t(`sets.${k}`))))),
      h("tbody", {}, rows)))) : h("p", {}, t("sets.none")));
}

export async function grid(context, set) {
  const path = `${context.base}/sets/${encodeURIComponent(set)}`;
  forgetOrder();
  const found = await get(`${path}/images`);
  const left = found.images.filter((image) => !image.labelled).length;
  const card = (image) => {
    const text = image.labelled ? t("grid.objects", { n: image.objects }) : image.why ?? t("grid.unlabelled");
    return h("li", {}, h("a", { class: "thumb", href: `#/${context.workspace}/label/${encodeURIComponent(set)}/${encodeURIComponent(image.name)}` },
      h("img", { src: `/api${path}/thumbnail?${query({ name: image.name })}`, loading: "lazy", alt: "", width: 150, height: 112 }),
      h("span", {}, image.name), h("span", { class: "why", title: text }, image.labelled ? "✓ " : "○ ", text)));
  };
  let timer = null;
  const order = h("button", { disabled: found.order === "computing", onclick: async () => {
    await post(`${path}/order`);
    context.again();
  } }, t(found.order === "computing" ? "grid.ordering" : "grid.order"));
  if (found.order === "computing") timer = setTimeout(context.again, 2000);
  const format = h("select", {}, FORMATS.map((name) => h("option", {}, name)));
  const save = h("button", { onclick: () => (location.href = `/api${path}/export?${query({ format: format.value })}`) }, t("grid.export"));
  show(h("h1", {}, set), h("p", { class: "note" }, t("grid.left", { left, all: found.images.length })),
    found.error && alertBox(found.error),
    h("div", { class: "row" }, context.may("labeller") && order, field(t("grid.format"), format), save),
    context.may("operator") && teach(context, path, found.classes),
    h("ul", { class: "grid", id: "images" }, found.images.map(card)));
  return () => clearTimeout(timer);
}

function teach(context, path, classes) {
  const labelled = classes.filter((c) => c.objects > 0);
  if (!labelled.length) return null;
  const boxes = labelled.map((c) => h("label", { class: "row middle" }, h("input", { type: "checkbox", value: c.name, checked: !c.known }),
    `${c.name} (${c.objects})`));
  const name = h("input", { required: true, pattern: "[A-Za-z0-9][A-Za-z0-9_\\-]*", maxlength: 63 });
  const shots = h("input", { type: "number", min: 1, max: 10000, value: 5, required: true });
  const submit = async (event) => {
    event.preventDefault();
    const chosen = boxes.map((box) => box.querySelector("input")).filter((box) => box.checked).map((box) => box.value);
    await post(`${path}/session`, { name: name.value, classes: chosen, shots: Number(shots.value) });
    say(t("teach.done", { name: name.value }));
    location.hash = `#/${context.workspace}/runs`;
  };
  return h("details", {}, h("summary", {}, t("teach.title")), h("form", { id: "teach", onsubmit: submit },
    h("p", { class: "note" }, t("teach.note")), h("div", { class: "row" }, boxes),
    h("div", { class: "row" }, field(t("teach.name"), name), field(t("teach.shots"), shots), h("button", { class: "primary" }, t("teach.add")))));
}
