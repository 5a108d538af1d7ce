"""A viewer of an app's live log who does as the page does (static/js/log.js): he comes back by the ids that he has seen."""

from __future__ import annotations

import json
import threading
import time
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

REFUSED = (4400, 4401, 4403, 4404)


class LogView(threading.Thread):
    """Follows on the websocket until it is closed. `texts` has every line in the order of its coming."""

    def __init__(self, url: str, app: str, token: str) -> None:
        super().__init__(daemon=True)
        self.url = f"{url.replace('http', 'ws', 1)}/ws/apps/{app}/logs"
        self.headers = {"Authorization": f"Bearer {token}"}
        self.texts: list[str] = []
        self.seen: dict[str, str] = {}
        self.floor = ""
        self.joined = 0
        self.refused: ConnectionClosed | None = None
        self._ending = False
        self._more = threading.Condition()

    def address(self) -> str:
        """Where to go on: `Log.path()` of the page."""
        after = ",".join(filter(None, [self.floor, *(f"{name}@{last}" for name, last in self.seen.items())]))
        return self.url + (f"?after={quote(after, safe='')}" if after else "")

    def run(self) -> None:
        """Follow; try again when the connection is lost, and never once refused."""
        while not self._ending and self.refused is None:
            try:
                with connect(self.address(), additional_headers=self.headers, compression=None, proxy=None) as socket:
                    self.joined += 1
                    self._follow(socket)
            except ConnectionClosed as error:
                if error.rcvd is not None and error.rcvd.code in REFUSED:
                    self.refused = error
            except (OSError, WebSocketException):
                time.sleep(0.1)  # nobody is there who could say when he is

    def _follow(self, socket: ClientConnection) -> None:
        while not self._ending:
            try:
                self.take(json.loads(socket.recv(timeout=0.5)))
            except TimeoutError:
                continue

    def take(self, lines: list[list[str]]) -> None:
        """`Log.take()` of the page."""
        if not lines:
            return
        self.floor = self.floor or lines[0][0]
        for line_id, instance, _, text in lines:
            if instance:
                self.seen[instance] = line_id
            self.texts.append(text)
        with self._more:
            self._more.notify_all()

    def await_line(self, text: str, within_s: float) -> bool:
        """Whether this line came in time."""
        with self._more:
            return self._more.wait_for(lambda: text in self.texts, within_s)

    def close(self) -> None:
        """End the thread."""
        self._ending = True
        self.join(20)
