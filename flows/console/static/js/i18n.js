// Texts in the chosen language. Keys are checked by a test: both files have the same ones, and every used one is there.

let texts = {};

export async function load(language) {
  const response = await fetch(`/i18n/${language}.json`);
  texts = await response.json();
  document.documentElement.lang = language;
  localStorage.setItem("samif-language", language);
}

export function chosen() {
  const kept = localStorage.getItem("samif-language");
  if (kept === "en" || kept === "ja") return kept;
  return navigator.language.startsWith("ja") ? "ja" : "en";
}

export function t(key, values = {}) {
  const text = texts[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
