"use strict";
(() => {
  const REACH = 24; // pixels from a point within which it answers
  const MOVES = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const tip = document.getElementById("tip");
  let shown = null;

  const line = (tag, text) => {
    const element = document.createElement(tag);
    element.textContent = text;
    return element;
  };

  const middle = (point) => {
    const box = point.querySelector(".reach").getBoundingClientRect();
    return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
  };

  const place = (point) => {
    const at = middle(point);
    const own = tip.getBoundingClientRect();
    const room = document.documentElement.clientWidth - own.width - 8;
    const above = at.y - own.height - 20;
    tip.style.left = `${Math.max(8, Math.min(at.x - own.width / 2, room))}px`;
    tip.style.top = `${above > 8 ? above : at.y + 20}px`;
  };

  const show = (point) => {
    const { name, recipe, quality, latency } = point.dataset;
    tip.replaceChildren(line("b", name), line("code", recipe), line("span", `${quality} · ${latency}`));
    tip.hidden = false;
    shown = point;
    place(point);
  };

  const hide = () => { tip.hidden = true; };

  // The nearest point answers, not the topmost: crowded points stay reachable.
  const nearest = (points, event) => {
    const far = (point) => {
      const at = middle(point);
      return Math.hypot(at.x - event.clientX, at.y - event.clientY);
    };
    const best = points.reduce((a, b) => (far(b) < far(a) ? b : a));
    return far(best) <= REACH ? best : null;
  };

  const watch = (plot) => {
    const points = [...plot.querySelectorAll(".point")];
    const mark = (name, chosen) => points.forEach((p) => p.classList.toggle(name, p === chosen));
    const choose = (chosen) => points.forEach((p) => p.setAttribute("tabindex", p === chosen ? "0" : "-1"));
    const settle = () => {
      mark("near", null);
      const focused = points.find((p) => p === document.activeElement);
      if (focused) show(focused); else hide();
    };

    choose(points[0]); // one stop for Tab; the arrows lead on
    plot.addEventListener("pointermove", (event) => {
      const near = nearest(points, event);
      if (!near) return settle();
      mark("near", near);
      show(near);
    });
    plot.addEventListener("pointerleave", settle);
    plot.addEventListener("pointerdown", (event) => {
      const near = nearest(points, event);
      if (!near) return;
      event.preventDefault();
      near.focus();
    });
    points.forEach((point, index) => {
      point.addEventListener("focus", () => { choose(point); show(point); });
      point.addEventListener("blur", hide);
      point.addEventListener("keydown", (event) => {
        const next = points[index + (MOVES[event.key] || 0)];
        if (!(event.key in MOVES) || !next) return;
        event.preventDefault();
        next.focus();
      });
    });
  };

  document.querySelectorAll(".plot").forEach(watch);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("scroll", () => { if (!tip.hidden) place(shown); }, { passive: true });
})();
