/* Keeps "Data lake access" on the home page up to date, and shows times in the browser's zone. */
(function () {
  "use strict";

  const WORDS = {
    fresh: "fresh",
    renewing: "renewing",
    late: "late",
    sign_in: "sign in again",
    refused: "refused",
  };
  const CALM = 30000; // milliseconds between two looks while all is well
  const BUSY = 5000; // and while something is under way

  function showTime(element) {
    const moment = new Date(element.dateTime);
    if (isNaN(moment)) return;
    const today = moment.toDateString() === new Date().toDateString();
    const format = { hour: "2-digit", minute: "2-digit" };
    if (!today) Object.assign(format, { day: "numeric", month: "short" });
    element.textContent = moment.toLocaleString(undefined, format);
    element.title = moment.toLocaleString();
  }

  function time(epoch) {
    const element = document.createElement("time");
    element.dateTime = new Date(epoch * 1000).toISOString();
    showTime(element);
    return element;
  }

  function withReference(found) {
    const wrong = found.reference && !["fresh", "renewing"].includes(found.state);
    return wrong ? `${found.message} (reference: ${found.reference})` : found.message;
  }

  /* What pages.py makes of one audience: "<lead> <time>, <tail>". */
  function rowText(one, status, now) {
    let lead = "";
    if (one.state === "fresh") lead = "fresh until";
    else if (one.expires_at !== null) lead = one.expires_at > now ? "valid until" : "ran out at";
    const saidAbove = status.state === "sign_in" && one.message === status.message;
    const tail = saidAbove ? "" : withReference(one);
    const parts = [];
    if (lead && one.expires_at !== null) {
      parts.push(`${lead} `, time(one.expires_at));
      if (tail) parts.push(", ");
    }
    return [...parts, tail];
  }

  function used(one, now) {
    if (!one.lifetime || one.renewed_at === null) return 0;
    return Math.round(100 * Math.min(1, Math.max(0, (now - one.renewed_at) / one.lifetime)));
  }

  function setClass(element, state) {
    for (const name of Object.keys(WORDS)) element.classList.toggle(`escape-${name}`, name === state);
  }

  /* Only what changed is touched, so that a screen reader hears only that. */
  function replace(element, parts) {
    const draft = document.createElement("span");
    draft.append(...parts);
    if (draft.innerHTML !== element.innerHTML) element.replaceChildren(...draft.childNodes);
  }

  function show(panel, status, now) {
    for (const one of status.audiences) {
      const row = panel.querySelector(`[data-audience="${CSS.escape(one.name)}"]`);
      if (!row) continue;
      const state = row.querySelector(".escape-state");
      setClass(state, one.state);
      replace(state, [WORDS[one.state] || one.state]);
      const bar = row.querySelector(".escape-bar");
      setClass(bar, one.state);
      bar.firstElementChild.style.width = `${used(one, now)}%`;
      replace(row.querySelector(".escape-row-text"), rowText(one, status, now));
      const renewed = one.renewed_at === null ? [] : ["last renewal ", time(one.renewed_at)];
      replace(row.querySelector(".escape-row-renewed"), renewed);
    }
    const signIn = panel.querySelector("#escape-sign-in");
    signIn.href = status.sign_in_url;
    signIn.hidden = status.state !== "sign_in";
    panel.querySelector("#escape-renew").hidden = status.state === "sign_in";
    const summary = status.state === "sign_in" ? [withReference(status)] : [];
    replace(panel.querySelector("#escape-summary"), summary);
  }

  function renewals(status) {
    return Object.fromEntries(status.audiences.map((one) => [one.name, one.renewed_at]));
  }

  /* What the button did. An issuer that did not answer leaves things as they were. */
  function outcome(before, status) {
    if (status.state === "sign_in") return "";
    const late = status.audiences.filter((one) => !(one.renewed_at > (before[one.name] || 0)));
    if (!late.length) return "Renewed just now.";
    const names = late.map((one) => one.label).join(", ");
    return `Not renewed: ${names}. What you have stays valid until the time above.`;
  }

  async function ask(url, method) {
    const headers = { Accept: "application/json", "X-XSRFToken": window.jhdata.xsrf_token };
    const reply = await fetch(url, { method, headers, credentials: "same-origin" });
    const body = await reply.json();
    const date = new Date(reply.headers.get("Date"));
    return { ok: reply.ok, body, now: (isNaN(date) ? Date.now() : date.getTime()) / 1000 };
  }

  function start(panel) {
    const button = panel.querySelector("#escape-renew");
    const result = panel.querySelector("#escape-result");
    let timer = null;
    let renewed = {}; // audience name -> time of its last renewal

    async function look() {
      clearTimeout(timer);
      let calm = false;
      try {
        const { ok, body, now } = await ask(panel.dataset.statusUrl, "GET");
        if (ok) {
          show(panel, body, now);
          renewed = renewals(body);
        }
        calm = ok && body.state === "fresh";
      } catch {
        /* The hub is restarting: what is shown stays, and the next look comes. */
      }
      if (!document.hidden) timer = setTimeout(look, calm ? CALM : BUSY);
    }

    button.addEventListener("click", async () => {
      button.disabled = true;
      replace(result, ["Renewing ..."]);
      try {
        await look();
        const { ok, body, now } = await ask(panel.dataset.renewUrl, "POST");
        if (ok) {
          show(panel, body, now);
          replace(result, [outcome(renewed, body)]);
          renewed = renewals(body);
        } else replace(result, [body.message || "That did not work; try again in a minute."]);
      } catch {
        replace(result, ["The hub does not answer; try again in a minute."]);
      }
      button.disabled = false;
    });

    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) look();
    });
    button.hidden = !panel.querySelector("#escape-sign-in").hidden;
    timer = setTimeout(look, BUSY);
  }

  document.querySelectorAll("time").forEach(showTime);
  const panel = document.getElementById("escape-access");
  if (panel) start(panel);
})();
