/** Light or dark: the palette has both, behind a media query, and this says when the dark one holds. */

const KEY = "tgc.theme";
const MEDIA = { system: "(prefers-color-scheme: dark)", light: "not all", dark: "all" };

const stored = () => {
  try { return localStorage.getItem(KEY); } catch { return null; }
};

export const theme = () => stored() in MEDIA ? stored() : "system";

export function setTheme(name) {
  const rules = [...document.getElementById("palette").sheet.cssRules];
  rules.find((rule) => rule instanceof CSSMediaRule).media.mediaText = MEDIA[name];
  document.documentElement.style.colorScheme = name === "system" ? "light dark" : name;
  try { localStorage.setItem(KEY, name); } catch { /* it holds for this page, then */ }
}

setTheme(theme());
