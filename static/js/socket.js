// A websocket that comes back: the address is asked anew at each try, so that it can say where to go on.
export class Socket {
  constructor(path, { onmessage, onstate = () => {} }) {
    Object.assign(this, { path, onmessage, onstate, tries: 0, closed: false });
    this.open();
    addEventListener("pagehide", () => this.close());
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.ws = new WebSocket(`${scheme}://${location.host}${this.path()}`);
    this.ws.onopen = () => { this.tries = 0; this.onstate("open"); };
    this.ws.onmessage = (event) => this.onmessage(JSON.parse(event.data));
    this.ws.onclose = (event) => this.lost(event.code);
  }

  lost(code) {
    if (this.closed) return;
    // 4401 and 4403: signed out, or the role has changed; 4404: the app is gone. Trying again would not help.
    if (code === 4400) this.onstate("unreadable"); // the cursor: the next try goes without
    if (code === 4404) { this.onstate("gone"); return; }
    if (code === 4401 || code === 4403) { this.onstate("refused"); return; }
    this.onstate("lost");
    this.tries += 1;
    setTimeout(() => this.closed || this.open(), Math.min(10000, 250 * 2 ** Math.min(this.tries, 6)) * (0.7 + Math.random() * 0.6));
  }

  close() {
    this.closed = true;
    this.ws.close();
  }
}
