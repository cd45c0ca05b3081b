"use strict";
(() => {
  const tip = document.getElementById("tip");

  const line = (tag, text) => {
    const element = document.createElement(tag);
    element.textContent = text;
    return element;
  };

  const place = (point) => {
    const at = point.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const room = document.documentElement.clientWidth - own.width - 8;
    const left = at.left + at.width / 2 - own.width / 2;
    const above = at.top - own.height - 8;
    tip.style.left = `${Math.max(8, Math.min(left, room))}px`;
    tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
  };

  const show = (point) => {
    const { name, recipe, quality, latency } = point.dataset;
    tip.replaceChildren(line("b", name), line("code", recipe), line("span", `${quality} · ${latency}`));
    tip.hidden = false;
    place(point);
  };

  const hide = () => { tip.hidden = true; };

  const MOVES = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

  for (const plot of document.querySelectorAll(".plot")) {
    const points = [...plot.querySelectorAll(".point")];
    const choose = (chosen) => points.forEach((p) => p.setAttribute("tabindex", p === chosen ? "0" : "-1"));
    choose(points[0]);
    points.forEach((point, index) => {
      point.addEventListener("pointerenter", () => show(point));
      point.addEventListener("pointerleave", () => { if (document.activeElement !== point) hide(); });
      point.addEventListener("focus", () => { choose(point); show(point); });
      point.addEventListener("blur", hide);
      point.addEventListener("click", () => point.focus());
      point.addEventListener("keydown", (event) => {
        const next = points[index + (MOVES[event.key] || 0)];
        if (!(event.key in MOVES) || !next) return;
        event.preventDefault();
        next.focus();
      });
    });
  }

  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("scroll", hide, { passive: true });
})();
