// Elements without markup in strings: nothing that a server or a person sends is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const show = (...children) => document.getElementById("view").replaceChildren(...children.filter(Boolean));

export function say(text, bad = false) {
  const line = h("div", { class: bad ? "bad" : "" }, text);
  document.getElementById("status").append(line);
  setTimeout(() => line.remove(), bad ? 9000 : 4000);
}

export const field = (label, input) => h("label", { class: "field" }, label, input);
export const badge = (kind, text) => h("span", { class: `badge ${kind}` }, text);
export const alertBox = (text) => h("div", { class: "alert", role: "alert" }, text);

// A name's colour: the same in every image.
export function colourOf(name) {
  let seed = 7;
  for (const letter of name) seed = (seed * 31 + letter.codePointAt(0)) % 360;
  return `hsl(${(seed * 137) % 360} 85% 62%)`;
}
