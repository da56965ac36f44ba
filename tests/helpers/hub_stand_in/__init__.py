"""The Hugging Face hub without a network: huggingface_hub's own client with httpx's own transport for tests."""

import base64
import hashlib
import importlib
import json
from typing import Any

import huggingface_hub
from huggingface_hub.utils import get_session


class HubStandIn:
    """Answers the requests of ``HfApi`` and of downloads for one repository.

    Attributes:
        files: Content of the repository by path; empty before the first commit.
        refuse: Status and JSON of the answer, by the end of a request's path.
    """

    sha = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, name: str):
        self.name, self.files, self.refuse = name, {}, {}  # type: ignore[var-annotated]
        # httpx with huggingface_hub 1, httpx2 with huggingface_hub 2
        self.http: Any = importlib.import_module(type(get_session()).__module__.split(".")[0])

    def connect(self, monkeypatch, cache) -> None:
        """Make it the hub of this test, with a token and an empty cache."""
        from huggingface_hub.utils import _http

        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        monkeypatch.setenv("HF_TOKEN", "hf_made_up")
        client = self.http.Client(
            transport=self.http.MockTransport(self.answer),
            event_hooks={"request": [_http.hf_request_event_hook]},
            follow_redirects=True,
        )
        huggingface_hub.set_client_factory(lambda: client)

    @staticmethod
    def disconnect() -> None:
        """Give huggingface_hub its own client back."""
        from huggingface_hub.utils import _http

        huggingface_hub.set_client_factory(_http.default_client_factory)

    def answer(self, request: Any) -> Any:
        """The hub's answer to one request."""
        path = request.url.path
        for end, refusal in self.refuse.items():
            if path.endswith(end):
                if isinstance(refusal, Exception):
                    raise refusal
                return self.http.Response(refusal[0], json=refusal[1])
        model = f"/api/models/{self.name}"
        if path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.json({"url": f"https://huggingface.co/{self.name}"})
        if path in (model, f"{model}/revision/main"):
            return self.json({"id": self.name, "sha": self.sha, "siblings": []})
        if path.startswith(f"{model}/tree/"):
            return self.json([self.entry(name) for name in self.files])
        if path == f"{model}/preupload/main":
            named = [file["path"] for file in json.loads(request.content)["files"]]
            return self.json(
                {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in named]}
            )
        if path == f"{model}/commit/main":
            for line in map(json.loads, request.content.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del self.files[line["value"]["path"]]
            return self.json(
                {"commitUrl": f"https://huggingface.co/{self.name}/commit/{self.sha}", "commitOid": self.sha}
            )
        file = path.removeprefix(f"/{self.name}/resolve/{self.sha}/")
        if file in self.files:
            headers = {"ETag": f'"{self.entry(file)["oid"]}"', "X-Repo-Commit": self.sha}
            if request.method == "HEAD":
                return self.http.Response(200, headers={**headers, "Content-Length": str(len(self.files[file]))})
            return self.http.Response(200, headers=headers, content=self.files[file])
        return self.http.Response(404, json={"error": "not found"}, headers={"X-Error-Code": "RepoNotFound"})

    def json(self, content: Any) -> Any:
        """A successful answer."""
        return self.http.Response(200, json=content)

    def entry(self, name: str) -> dict[str, Any]:
        """A file as the hub lists it."""
        content = self.files[name]
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return {"type": "file", "path": name, "size": len(content), "oid": oid}
