"""A person with a browser that follows redirects, fills in forms and keeps cookies."""

from __future__ import annotations

import json
import uuid
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
from websockets.sync.client import connect

from tests.harness.processes import wait_for


class _Forms(HTMLParser):
    """The forms of a page: action, method, the values of their inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {k: v or "" for k, v in attrs}
        if tag == "form":
            method = found.get("method", "get").lower()
            self.forms.append({"action": found.get("action", ""), "method": method, "fields": {}})
        elif tag in {"input", "button"} and self.forms and found.get("name"):
            checkable = found.get("type") in {"radio", "checkbox"}
            if not checkable or "checked" in found:
                self.forms[-1]["fields"].setdefault(found["name"], found.get("value", ""))


def forms(page: httpx.Response) -> list[dict[str, Any]]:
    parser = _Forms()
    parser.feed(page.text)
    return parser.forms


class Person:
    """Somebody at ``hub`` (its public address, ending in ``/``) with cookies of their own."""

    def __init__(self, hub: str, name: str = "alice", password: str | None = None) -> None:
        self.hub, self.name = hub, name
        self.password = name if password is None else password
        self.client = httpx.Client(timeout=60, follow_redirects=True)

    def close(self) -> None:
        self.client.close()

    # -- signing in ---------------------------------------------------------

    def start_login(self, next_url: str = "") -> httpx.Response:
        """Press the button of the hub's page; ends at the IAM's login form."""
        query = {"next": next_url} if next_url else {}
        return self.client.get(f"{self.hub}hub/oauth_login", params=query)

    def submit(self, page: httpx.Response, **values: str) -> httpx.Response:
        """Fill in the page's first form and send it."""
        form = forms(page)[0]
        target = urljoin(str(page.url), form["action"] or str(page.url))
        fields = {**form["fields"], **values}
        if form["method"] == "post":
            return self.client.post(target, data=fields)
        return self.client.get(target, params=fields)

    def login(self, next_url: str = "") -> httpx.Response:
        """Sign in, giving name and password and consent wherever the IAM asks."""
        page = self.start_login(next_url)
        for _ in range(3):
            found = forms(page)
            if urlsplit(str(page.url)).netloc == urlsplit(self.hub).netloc or not found:
                return page
            if "password" in found[0]["fields"]:
                page = self.submit(page, username=self.name, password=self.password)
            else:
                page = self.submit(page)
        return page

    # -- the hub's API as the hub's own pages use it --------------------------

    @property
    def xsrf(self) -> str:
        """The XSRF token for ``/hub/``; JupyterHub sets one cookie a path."""
        found = [c for c in self.client.cookies.jar if c.name == "_xsrf" and c.path == "/hub/"]
        return str(found[0].value) if found else ""

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"X-XSRFToken": self.xsrf, "Referer": f"{self.hub}hub/home"}
        return self.client.request(
            method, f"{self.hub}hub/api/{path}", headers=headers, follow_redirects=False, **options
        )

    def spawn(self, options: dict[str, Any] | None = None, timeout: float = 90) -> None:
        """Start the default server and wait until it is ready."""
        self.client.get(f"{self.hub}hub/home")
        answer = self.api("POST", f"users/{self.name}/server", json=options or {})
        assert answer.status_code in {201, 202}, (answer.status_code, answer.text)
        wait_for("the server to be ready", self.server_ready, timeout, every=0.3)

    def server(self) -> dict[str, Any]:
        answer = self.api("GET", f"users/{self.name}")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()["servers"].get("", {})
        return found

    def server_ready(self) -> bool:
        return bool(self.server().get("ready"))

    def stop_server(self, timeout: float = 60) -> None:
        answer = self.api("DELETE", f"users/{self.name}/server")
        assert answer.status_code in {202, 204}, (answer.status_code, answer.text)
        wait_for("the server to stop", lambda: not self.server(), timeout, every=0.3)

    # -- inside the session ---------------------------------------------------

    @property
    def lab(self) -> str:
        return f"{self.hub}user/{self.name}/"

    def open_lab(self) -> httpx.Response:
        """Visit the session once, so that its own cookies are set."""
        page = self.client.get(self.lab)
        assert urlsplit(str(page.url)).path.startswith(f"/user/{self.name}/"), page.url
        return page

    def lab_api(self, method: str, path: str, **options: Any) -> httpx.Response:
        cookies = [c for c in self.client.cookies.jar if c.name == "_xsrf"]
        mine = [c for c in cookies if c.path.startswith("/user/")]
        headers = {"X-XSRFToken": str(mine[0].value) if mine else "", "Referer": f"{self.lab}lab"}
        return self.client.request(method, f"{self.lab}{path}", headers=headers, **options)

    def start_kernel(self) -> str:
        self.open_lab()
        answer = self.lab_api("POST", "api/kernels", json={"name": "python3"})
        assert answer.status_code == 201, (answer.status_code, answer.text)
        return str(answer.json()["id"])

    def run(self, kernel: str, code: str, timeout: float = 60) -> str:
        """What ``code`` printed in the kernel, over the proxy's websocket."""
        url = f"{self.lab}api/kernels/{kernel}/channels".replace("http://", "ws://")
        request = self.client.build_request("GET", f"{self.lab}api/kernels")
        headers = {"Cookie": request.headers.get("Cookie", "")}
        message_id = uuid.uuid4().hex
        with connect(url, additional_headers=headers, proxy=None, max_size=None) as socket:
            socket.send(json.dumps(_execute_request(message_id, code)))
            printed = []
            while True:
                message = json.loads(socket.recv(timeout=timeout))
                if message.get("parent_header", {}).get("msg_id") != message_id:
                    continue
                kind, content = message["msg_type"], message["content"]
                if kind == "stream":
                    printed.append(content["text"])
                elif kind == "error":
                    raise AssertionError("\n".join(content["traceback"]))
                elif kind == "status" and content["execution_state"] == "idle":
                    return "".join(printed)


def _execute_request(message_id: str, code: str) -> dict[str, Any]:
    header = {"msg_id": message_id, "username": "", "session": uuid.uuid4().hex, "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    return {
        "header": {**header, "msg_type": "execute_request"},
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
        "buffers": [],
    }
