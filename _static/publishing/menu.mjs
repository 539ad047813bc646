// The menu of a page is a <details>, which works without this: here it closes on Escape, on a click elsewhere, and when
// the focus leaves it.
for (const menu of document.querySelectorAll("details.page-menu")) {
  const close = (event) => { if (menu.open && !menu.contains(event.target)) menu.open = false; };
  document.addEventListener("pointerdown", close);
  document.addEventListener("focusin", close);
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
}
