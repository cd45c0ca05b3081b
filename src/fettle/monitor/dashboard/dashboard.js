"use strict";
(() => {
  const MOVES = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const main = document.querySelector("main");
  const tip = document.getElementById("tip");
  const told = document.getElementById("told");
  let shown = null;

  const line = (tag, text) => {
    const element = document.createElement(tag);
    element.textContent = text;
    return element;
  };

  const place = (point) => {
    const at = point.querySelector(".reach").getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const room = document.documentElement.clientWidth - own.width - 8;
    const above = at.top - own.height - 8;
    tip.style.left = `${Math.max(8, Math.min(at.left + at.width / 2 - own.width / 2, room))}px`;
    tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
  };

  const show = (point) => {
    const lines = point.dataset.lines.split("\n").map((text) => line("span", text));
    tip.replaceChildren(line("b", point.dataset.title), ...lines);
    tip.hidden = false;
    shown = point;
    place(point);
  };

  const hide = () => { tip.hidden = true; shown = null; };

  const nearest = (points, x) => {
    const far = (point) => {
      const box = point.querySelector(".reach").getBoundingClientRect();
      return Math.abs(box.left + box.width / 2 - x);
    };
    return points.reduce((a, b) => (far(b) < far(a) ? b : a));
  };

  const watch = (plot) => {
    const points = [...plot.querySelectorAll(".point")];
    if (!points.length) return;
    const mark = (chosen) => points.forEach((p) => p.classList.toggle("near", p === chosen));
    const choose = (chosen) => points.forEach((p) => p.setAttribute("tabindex", p === chosen ? "0" : "-1"));
    const settle = () => {
      mark(null);
      const focused = points.find((p) => p === document.activeElement);
      if (focused) show(focused); else hide();
    };
    const near = (event) => {
      const found = nearest(points, event.clientX);
      mark(found);
      show(found);
      return found;
    };

    choose(points[points.length - 1]); // one stop for Tab, at the newest; the arrows lead on
    plot.addEventListener("pointermove", near);
    plot.addEventListener("pointerleave", settle);
    plot.addEventListener("pointerdown", (event) => near(event).focus({ preventScroll: true }));
    points.forEach((point, index) => {
      point.addEventListener("focus", () => { choose(point); show(point); });
      point.addEventListener("blur", hide);
      point.addEventListener("keydown", (event) => {
        const ends = { Home: 0, End: points.length - 1 };
        const next = points[event.key in ends ? ends[event.key] : index + (MOVES[event.key] || NaN)];
        if (!next) return;
        event.preventDefault();
        next.focus();
      });
    });
  };

  const begin = () => main.querySelectorAll(".plot").forEach(watch);

  // What has the focus is found again by what it is called, not by its place: findings come and go.
  const PLACES = "a, .scroll, .point";
  const called = (element) => [
    element.closest("nav") ? "nav" : element.closest("section")?.id,
    element.closest(".plot")?.getAttribute("class"),
    element.closest(".plot")?.getAttribute("aria-label"),
    element.getAttribute("href") || element.dataset.title || element.getAttribute("aria-label"),
  ].join("|");
  const keep = (change) => {
    const active = document.activeElement;
    const name = active && active.matches(PLACES) ? called(active) : null;
    const position = window.scrollY;
    hide();
    change();
    begin();
    const again = name && [...main.querySelectorAll(PLACES)].find((e) => called(e) === name);
    if (again) again.focus({ preventScroll: true });
    window.scrollTo(0, position);
  };

  const every = 1000 * Number(document.body.dataset.every || 0);
  let version = null;
  const stale = (yes) => main.querySelector(".eyebrow")?.classList.toggle("stale", yes);

  let asking = false;
  const refresh = async () => {
    if (document.hidden || asking) return;
    asking = true;
    try {
      const headers = version ? { "If-None-Match": version } : {};
      const answer = await fetch("?part=main", { headers, cache: "no-store" });
      if (answer.status !== 304) {
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        const text = await answer.text();
        const health = document.getElementById("health")?.textContent;
        keep(() => { main.innerHTML = text; });
        version = answer.headers.get("ETag");
        const now = document.getElementById("health")?.textContent;
        if (now !== health) {
          told.textContent = now.trim();
          document.title = `${now.trim()} – fettle monitor`;
        }
      }
      stale(false);
    } catch {
      stale(true);
    } finally {
      asking = false;
    }
  };

  begin();
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("scroll", () => { if (shown) place(shown); }, { passive: true });
  if (every) {
    setInterval(refresh, every);
    document.addEventListener("visibilitychange", refresh);
  }
})();
