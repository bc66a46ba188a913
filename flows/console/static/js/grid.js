// Folders of images, and the images of one folder.

import { get, post, query, save } from "./api.js";
import { alertBox, badge, field, h, say, show } from "./dom.js";
import { forgetOrder } from "./editor.js";
import { t } from "./i18n.js";
import { teachForm } from "./teach.js";

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
  const lost = h("div", { id: "export-lost", role: "status" });
  const exported = async () => {
    try {
      lost.replaceChildren(...(await save(`${path}/export?${query({ format: format.value })}`)).map((sentence) => h("p", {}, sentence)));
    } catch (error) {
      lost.replaceChildren(alertBox(error.message));
    }
  };
  show(h("h1", {}, set), h("p", { class: "note" }, t("grid.left", { left, all: found.images.length })),
    found.error && alertBox(found.error),
    h("div", { class: "row" }, context.may("labeller") && order, field(t("grid.format"), format), h("button", { onclick: exported }, t("grid.export"))), lost,
    found.purpose && h("p", { class: "note" }, t(`purpose.${found.purpose}`), " ", h("a", { href: `#/${context.workspace}/review` }, t("section.review"))),
    context.may("labeller") && importForm(context, path),
    context.may("operator") && !found.purpose && teach(context, path, found.classes),
    h("ul", { class: "grid", id: "images" }, found.images.map(card)));
  return () => clearTimeout(timer);
}

function teach(context, path, classes) {
  const labelled = classes.filter((c) => c.objects > 0);
  if (!labelled.length) return null;
  return teachForm({ id: "teach", use: "shots", classes: labelled, send: (body) => post(`${path}/session`, body), done: (made) => {
    say(t("teach.done", { name: made.session }));
    location.hash = `#/${context.workspace}/runs`;
  } });
}

const MOST_BYTES = 64_000_000; // of an upload, as the server's
const MOST_FILES = 1000;
const PHOTOS = /\.(jpe?g|tiff?|heic|heif|webp|bmp)$/i;

// Labels of another tool: a file, a folder without its photographs, or a ZIP archive.
function importForm(context, path) {
  const file = h("input", { type: "file", multiple: true, id: "import-file" });
  const folder = h("input", { type: "file", webkitdirectory: true, id: "import-folder" });
  const choice = (id, values) => h("select", { id }, values.map((value) => h("option", { value }, t(`import.${value || "guessed"}`))));
  const format = h("select", { id: "import-format" }, h("option", { value: "" }, t("import.guessed")), FORMATS.map((name) => h("option", { value: name }, name)));
  const boxes = choice("import-boxes", ["leave-out", "outline"]);
  const labelled = choice("import-labelled", ["keep", "replace", "join"]);
  const cls = h("input", { id: "import-class", maxlength: 200 });
  const report = h("div", { id: "import-report", role: "status" });
  const button = h("button", { class: "primary" }, t("import.start"));
  const submit = async (event) => {
    event.preventDefault();
    const chosen = [...file.files, ...[...folder.files].filter((one) => !PHOTOS.test(one.name))];
    const refuse = (text) => report.replaceChildren(alertBox(text));
    if (!chosen.length) return refuse(t("import.choose"));
    if (chosen.length > MOST_FILES || chosen.reduce((sum, one) => sum + one.size, 0) > MOST_BYTES) {
      return refuse(t("import.tooMuch", { files: MOST_FILES, mb: MOST_BYTES / 1e6 }));
    }
    const form = new FormData();
    for (const one of chosen) form.append("files", one, one.webkitRelativePath || one.name);
    if (format.value) form.append("format", format.value);
    if (cls.value.trim()) form.append("default_class", cls.value.trim());
    form.append("boxes", boxes.value);
    form.append("labelled", labelled.value);
    button.disabled = true;
    report.replaceChildren(h("p", {}, t("import.working")));
    try {
      report.replaceChildren(...reportOf(await post(`${path}/import`, form), context));
    } catch (error) {
      refuse(error.message);
    } finally {
      button.disabled = false;
    }
  };
  return h("details", { id: "import" }, h("summary", {}, t("import.title")), h("form", { onsubmit: submit },
    h("p", { class: "note" }, t("import.note")),
    h("div", { class: "row" }, field(t("import.file"), file), field(t("import.folder"), folder)),
    h("div", { class: "row" }, field(t("grid.format"), format), field(t("import.boxes"), boxes), field(t("import.class"), cls),
      field(t("import.labelled"), labelled), button)), report);
}

function reportOf(done, context) {
  const lost = done.findings.map((kind) => h("tr", {}, h("td", {}, kind.loss ? t(`loss.${kind.loss}`) : "–"), h("td", { class: "num" }, kind.count),
    h("td", { class: "words" }, `${kind.what}; ${kind.remedy}`), h("td", { class: "words" }, kind.places.join(" | "))));
  return [
    h("p", { class: "fine" }, t("import.done", { objects: done.objects, images: done.images, format: done.format })),
    done.kept.length > 0 && h("p", {}, t("import.kept", { n: done.kept.length })),
    done.crowds > 0 && h("p", {}, t("import.crowds", { n: done.crowds })),
    h("p", {}, t("import.lost", { n: done.left_out }), " ", h("button", { onclick: context.again }, t("import.show"))),
    lost.length > 0 && h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("import.findings") }, h("table", {},
      h("thead", {}, h("tr", {}, ["loss", "count", "finding", "where"].map((k) => h("th", { scope: "col", class: k === "count" && "num" }, t(`import.${k}`))))),
      h("tbody", {}, lost))),
  ].filter(Boolean);
}
