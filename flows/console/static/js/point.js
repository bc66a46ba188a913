// The operating point: the share of objects that are named, against false names; the limit can be moved along the curve.

import { get, put } from "./api.js";
import { alertBox, field, h, s, say, show } from "./dom.js";
import { t } from "./i18n.js";

const WIDTH = 640;
const HEIGHT = 300;
const LEFT = 46;
const BOTTOM = 34;
const STEPS = 200;

export async function point(context) {
  const found = await get(`${context.base}/point`);
  const curve = (found.naming?.curve ?? []).map((rates) => ({ x: rates.false_names.value, y: rates.named.value })).sort((a, b) => a.x - b.x || a.y - b.y);
  const most = Math.max(10, found.limit ?? 0, ...curve.map((rates) => rates.x)) * 1.05;
  // the slider is logarithmic: a limit of 5 and one of 500 are both easy to set
  const toLimit = (step) => Math.max(0.1, Number((Math.expm1((step / STEPS) * Math.log1p(most))).toPrecision(2)));
  const toStep = (limit) => Math.round((Math.log1p(limit) / Math.log1p(most)) * STEPS);
  const x = (value) => LEFT + (value / most) * (WIDTH - LEFT - 12);
  const y = (value) => HEIGHT - BOTTOM - value * (HEIGHT - BOTTOM - 14);
  const named = (limit) => curve.filter((rates) => rates.x <= limit).reduce((best, rates) => Math.max(best, rates.y), 0);
  const marker = s("circle", { r: 8, fill: "#a3271b", stroke: "#fff", "stroke-width": 2 });
  const line = s("line", { y1: y(0), y2: y(1), stroke: "#a3271b", "stroke-width": 1.5, "stroke-dasharray": "5 4" });
  const says = h("p", { id: "point-says", "aria-live": "polite" });
  const slider = h("input", { type: "range", min: 1, max: STEPS, id: "limit", "aria-label": t("point.limit"), disabled: !context.may("operator") });
  let limit = found.limit ?? toLimit(STEPS);

  function move(value, fromSlider) {
    limit = value;
    const at = Math.min(value, most);
    line.setAttribute("x1", x(at));
    line.setAttribute("x2", x(at));
    marker.setAttribute("cx", x(at));
    marker.setAttribute("cy", y(named(value)));
    if (!fromSlider) slider.value = toStep(value);
    const text = t("point.says", { limit: value, named: Math.round(100 * named(value)) });
    slider.setAttribute("aria-valuetext", text);
    says.textContent = text;
  }
  slider.addEventListener("input", () => move(toLimit(Number(slider.value)), true));

  const grid = [0, 0.25, 0.5, 0.75, 1].map((value) => [s("line", { x1: LEFT, x2: WIDTH - 12, y1: y(value), y2: y(value), stroke: "#cfd6df" }),
    s("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, `${100 * value} %`)]);
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => s("text", { x: x(share * most), y: HEIGHT - 14, "text-anchor": share === 1 ? "end" : "middle" }, Math.round(share * most)));
  const drawing = s("svg", { class: "curve", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": t("point.curve") }, grid, ticks,
    curve.length > 1 && s("polyline", { points: curve.map((rates) => `${x(rates.x)},${y(rates.y)}`).join(" "), fill: "none", stroke: "#1d4e89", "stroke-width": 3 }), line, marker);
  let dragging = false;
  const drag = (event) => {
    if (!dragging || !context.may("operator")) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
    move(Math.max(0.1, Number((((at.x - LEFT) / (WIDTH - LEFT - 12)) * most).toPrecision(2))));
  };
  drawing.addEventListener("pointerdown", (event) => {
    dragging = true;
    drawing.setPointerCapture(event.pointerId);
    drag(event);
  });
  drawing.addEventListener("pointermove", drag);
  drawing.addEventListener("pointerup", () => (dragging = false));
  const save = async () => {
    const now = await put(`${context.base}/point`, { limit });
    say(t("point.saved", { limit: now.limit }));
  };
  show(h("h1", {}, t("section.point")), h("p", { class: "note" }, t("point.note", { session: found.session })),
    curve.length < 2 ? alertBox(t("point.none")) : h("section", {}, h("figure", {}, drawing, h("figcaption", { class: "note" }, t("point.axes"))), says, slider,
      context.may("operator") && h("p", {}, h("button", { class: "primary", onclick: save }, t("point.save")))));
  move(limit);
}
