/*
 * The data lake's item in JupyterLab's status bar.
 *
 * Written by hand as a federated module, so that there is no build step: JupyterLab
 * loads this file, calls `init` with the modules it shares, then asks for './extension'.
 * All it ever sees is status.json's values; there is no token on this side.
 */
(() => {
  'use strict';

  const PLUGIN = 'escape-hub:status';
  const FRESH_POLL = 30000;
  const OTHER_POLL = 10000;

  /** A word for each state of escape_hub/core/status.py, and the colour beside it. */
  const STATES = {
    fresh: { word: 'fresh', colour: '--jp-success-color1' },
    renewing: { word: 'renewing', colour: '--jp-info-color1' },
    late: { word: 'late', colour: '--jp-warn-color1' },
    sign_in: { word: 'sign in again', colour: '--jp-error-color1' },
    refused: { word: 'refused', colour: '--jp-error-color1' }
  };

  const STYLE = `
    .jp-EscapeHub-item { display: flex; align-items: center; gap: 6px; height: 100%;
      padding: 0 6px; border: 0; background: none; color: inherit; font: inherit; cursor: pointer; }
    .jp-EscapeHub-item:focus-visible { outline: 2px solid var(--jp-brand-color1); outline-offset: -2px; }
    .jp-EscapeHub-dot { width: 8px; height: 8px; border-radius: 50%; flex: none; }
    .jp-EscapeHub-details { min-width: 320px; max-width: 560px; color: var(--jp-ui-font-color1); }
    .jp-EscapeHub-details ul { list-style: none; margin: 12px 0; padding: 0; }
    .jp-EscapeHub-details li { padding: 8px 0; border-top: 1px solid var(--jp-border-color2); }
    .jp-EscapeHub-row { display: flex; align-items: center; gap: 8px; }
    .jp-EscapeHub-row strong { flex: 1; }
    .jp-EscapeHub-note { margin: 4px 0 0; color: var(--jp-ui-font-color2); }
    .jp-EscapeHub-details a { color: var(--jp-content-link-color); text-decoration: underline; }
  `;

  let shareScope = null;

  /** The module that JupyterLab itself uses, so that its tokens are the same objects. */
  async function shared(name) {
    const versions = shareScope[name];
    if (!versions) {
      throw new Error(`JupyterLab does not share ${name}`);
    }
    const all = Object.values(versions);
    const entry = all.find(one => one.loaded) || all[0];
    return (await entry.get())();
  }

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  const look = state => STATES[state] || STATES.late;

  function dot(state) {
    const made = element('span', { className: 'jp-EscapeHub-dot', ariaHidden: 'true' });
    made.style.background = `var(${look(state).colour})`;
    return made;
  }

  /** An address to sign in at, or null for anything but http and https. */
  function signInAddress(status) {
    try {
      const address = new URL(status.sign_in_url, window.location.origin);
      return /^https?:$/.test(address.protocol) && status.sign_in_url ? address.href : null;
    } catch {
      return null;
    }
  }

  function signInLink(address) {
    return element('a', {
      href: address,
      target: '_blank',
      rel: 'noopener',
      className: 'jp-EscapeHub-signIn',
      textContent: 'Sign in again (opens a new tab)'
    });
  }

  /** A moment in the browser's zone; the day too when it is not today. */
  function moment(seconds) {
    const date = new Date(seconds * 1000);
    const today = date.toDateString() === new Date().toDateString();
    const time = { hour: '2-digit', minute: '2-digit' };
    return element('time', {
      dateTime: date.toISOString(),
      textContent: today
        ? date.toLocaleTimeString([], time)
        : date.toLocaleString([], { ...time, day: 'numeric', month: 'short' })
    });
  }

  function life(audience) {
    if (audience.expires_at === null) {
      return ['not here yet'];
    }
    const past = audience.expires_at * 1000 < Date.now();
    const parts = [past ? 'ended at ' : 'good until ', moment(audience.expires_at)];
    if (audience.renewed_at !== null) {
      parts.push(', last renewed at ', moment(audience.renewed_at));
    }
    return parts;
  }

  /** A row of the details; its own message only where it says more than `summary`. */
  function audienceRow(audience, summary) {
    const row = element(
      'div',
      { className: 'jp-EscapeHub-row' },
      dot(audience.state),
      element('strong', { textContent: audience.label || audience.name }),
      element('span', { textContent: look(audience.state).word })
    );
    const note = element('p', { className: 'jp-EscapeHub-note' }, ...life(audience));
    const item = element('li', {}, row, note);
    if (!['fresh', 'sign_in'].includes(audience.state) && audience.message !== summary) {
      item.append(
        element('p', { className: 'jp-EscapeHub-note', textContent: audience.message })
      );
    }
    return item;
  }

  /** The text of the details, anew for each status. */
  function renderDetails(node, status) {
    const words = status.state === 'fresh' ? `fresh: ${status.message}` : status.message;
    const summary = element('p', { textContent: words.charAt(0).toUpperCase() + words.slice(1) });
    summary.setAttribute('role', 'status');
    const rows = status.audiences.map(one => audienceRow(one, status.message));
    const parts = [summary, element('ul', {}, ...rows)];
    const address = signInAddress(status);
    const helps = [status, ...status.audiences].some(one => one.state === 'sign_in');
    if (address && helps) {
      parts.push(element('p', {}, signInLink(address)));
    }
    if (status.reference) {
      parts.push(
        element('p', {
          className: 'jp-EscapeHub-note',
          textContent: `Reference to quote to the operator: ${status.reference}`
        })
      );
    }
    node.replaceChildren(...parts);
  }

  /** Asks this user's server how things stand, while the page can be seen. */
  class StatusPoll {
    constructor(services, onStatus) {
      this._services = services;
      this._onStatus = onStatus;
      this._timer = 0;
      this._state = 'late';
      document.addEventListener('visibilitychange', () => {
        // Back from another tab, where a sign-in may just have happened.
        if (!document.hidden && this._timer !== null) {
          void this.ask(this._state !== 'fresh');
        }
      });
    }

    /** Ask once and plan the next time; `now` has the server ask the hub at once. */
    async ask(now = false) {
      window.clearTimeout(this._timer);
      const { ServerConnection } = this._services;
      const settings = ServerConnection.makeSettings();
      // Without no_track_activity an open page would keep an idle server from being culled.
      const url = `${settings.baseUrl}escape-hub/status?no_track_activity=1`;
      try {
        const method = now ? 'POST' : 'GET';
        const reply = await ServerConnection.makeRequest(url, { method }, settings);
        if (reply.status === 404) {
          return this.stop();
        }
        const status = reply.ok ? await reply.json() : null;
        if (status && status.state === null) {
          return this.stop(); // not a session of the hub
        }
        if (status) {
          this._state = status.state;
          this._onStatus(status);
        }
      } catch (error) {
        // JupyterLab itself tells that the server is away.
        console.debug('escape-hub: no status', error);
      }
      const wait = this._state === 'fresh' ? FRESH_POLL : OTHER_POLL;
      window.clearTimeout(this._timer);
      this._timer = window.setTimeout(() => this._onTimer(), wait);
    }

    _onTimer() {
      // A page nobody sees asks nothing: the proxy would count it as activity.
      if (!document.hidden) {
        void this.ask();
      }
    }

    stop() {
      this._timer = null;
    }
  }

  /** The item in the status bar: a button with a dot and the state in words. */
  class StatusItem {
    constructor(Widget, onClick) {
      this._button = element('button', {
        type: 'button',
        className: 'jp-EscapeHub-item',
        onclick: onClick
      });
      this.widget = new Widget({ node: element('div', {}, this._button) });
    }

    show(status) {
      const text = `Data lake: ${look(status.state).word}`;
      this._button.replaceChildren(dot(status.state), element('span', { textContent: text }));
      this._button.title = `${status.message} (click for details)`;
      this._button.dataset.state = status.state;
    }
  }

  /** One notice when a sign-in becomes needed; it goes when it no longer is. */
  class SignInNotice {
    constructor(Notification) {
      this._notification = Notification;
      this._id = null;
    }

    update(status) {
      const needed = status.state === 'sign_in';
      if (needed && this._id === null) {
        const address = signInAddress(status);
        const open = event => {
          event.preventDefault(); // the notice stays until the sign-in is done
          window.open(address, '_blank', 'noopener');
        };
        const action = { label: 'Sign in again', callback: open, displayType: 'accent' };
        this._id = this._notification.warning(`Data lake: ${status.message}`, {
          autoClose: false,
          actions: address ? [action] : []
        });
      } else if (!needed && this._id !== null) {
        this._notification.dismiss(this._id);
        this._id = null;
      }
    }
  }

  async function makePlugin() {
    const [apputils, services, statusbar, widgets] = await Promise.all(
      ['@jupyterlab/apputils', '@jupyterlab/services', '@jupyterlab/statusbar', '@lumino/widgets'].map(
        shared
      )
    );
    const { Dialog, Notification } = apputils;
    const { Widget } = widgets;

    function activate(app, statusBar) {
      document.head.append(element('style', { textContent: STYLE }));
      let status = null;
      let details = null;

      async function showDetails() {
        details = new Widget();
        details.addClass('jp-EscapeHub-details');
        renderDetails(details.node, status);
        const dialog = new Dialog({
          title: 'Data lake access',
          body: details,
          buttons: [
            Dialog.cancelButton({ label: 'Ask again now' }),
            Dialog.okButton({ label: 'Close' })
          ]
        });
        const result = await dialog.launch();
        details = null;
        if (result.button.label === 'Ask again now') {
          await poll.ask(true);
          window.setTimeout(() => void poll.ask(), 1500);
        }
      }

      const item = new StatusItem(Widget, () => void showDetails());
      const notice = new SignInNotice(Notification);
      const poll = new StatusPoll(services, found => {
        const first = status === null;
        status = found;
        item.show(status);
        if (first && statusBar) {
          statusBar.registerStatusItem(PLUGIN, { item: item.widget, align: 'left', rank: 90 });
        }
        notice.update(status);
        if (details !== null) {
          renderDetails(details.node, status);
        }
      });
      void app.started.then(() => poll.ask());
    }

    return {
      id: PLUGIN,
      description: "Shows how the session's access to the data lake stands.",
      autoStart: true,
      optional: [statusbar.IStatusBar],
      activate
    };
  }

  const container = {
    init(scope) {
      shareScope = scope;
    },
    async get(module) {
      if (module !== './extension') {
        throw new Error(`escape-hub has no module ${module}`);
      }
      const plugin = await makePlugin();
      return () => ({ __esModule: true, default: plugin });
    }
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB['escape-hub'] = container;
})();
