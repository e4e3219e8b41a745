"""A hub of models in memory, with as much of Hugging Face's HTTP protocol as its library uses for models."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = 10_000  # bytes; larger files go the way of Git LFS, as binary ones do at the real hub


class Hub:
    """Repositories: name → revision → file → contents; and what was asked for."""

    def __init__(self, token: str):
        self.token, self.repos, self.private, self.large, self.asked = token, {}, {}, {}, []

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        contents = json.dumps(
            [len(self.repos[name]), sorted((k, hashlib.sha1(v).hexdigest()) for k, v in files.items())]
        )
        digest = hashlib.sha1(contents.encode()).hexdigest()
        self.repos[name] |= {digest: files, "main": files}
        return digest

    def head(self, name: str, revision: str) -> str:
        """The digest of a revision."""
        versions = self.repos[name]
        return next(key for key in reversed(versions) if key != "main" and versions[key] is versions[revision])


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    """A request handler for a hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            hub.asked.append(f"{self.command} {self.path}")

        def answer(self, status: int, body: object = None, headers: dict[str, str] | None = None):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def refuse(self, status: int, code: str, words: str):
            self.answer(status, {"error": words}, {"X-Error-Code": code, "X-Error-Message": words})

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            path = unquote(urlsplit(self.path).path)
            for pattern, method in ROUTES:
                if match := re.fullmatch(pattern, f"{self.command} {path}"):
                    return method(self, body, *match.groups())
            self.refuse(404, "", f"no such route: {self.command} {path}")

        do_GET = do_HEAD = do_POST = do_PUT = handle_any

        def known(self, name: str, revision: str = "main") -> bool:
            """Whether whoever asks may see a revision of a repository; answers where not, as the real hub does."""
            allowed = self.headers.get("Authorization") == f"Bearer {hub.token}"
            if name not in hub.repos or (hub.private[name] and not allowed):
                self.refuse(404, "RepoNotFound", "Repository not found")
            elif revision not in hub.repos[name]:
                self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            else:
                return True
            return False

        def create(self, body):
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.refuse(401, "", "Invalid credentials")
            about = json.loads(body)
            name = f"{about.get('organization') or 'me'}/{about['name']}"
            if name in hub.repos:
                return self.answer(
                    409, {"url": f"{ENDPOINT(self)}/{name}", "error": "You already created this model repo"}
                )
            hidden = about.get("private") or about.get("visibility") == "private"
            hub.repos[name], hub.private[name] = {"main": {}}, bool(hidden)
            hub.commit(name, {".gitattributes": b"*.safetensors filter=lfs"})
            self.answer(200, {"url": f"{ENDPOINT(self)}/{name}", "name": name, "id": name})

        def info(self, body, name, revision="main"):
            if self.known(name, revision):
                files = [{"rfilename": file} for file in sorted(hub.repos[name][revision])]
                self.answer(200, {"id": name, "modelId": name, "sha": hub.head(name, revision), "siblings": files})

        def tree(self, body, name, revision):
            if self.known(name, revision):
                files = hub.repos[name][revision]
                entries = [
                    {"type": "file", "path": k, "size": len(v), "oid": hashlib.sha1(v).hexdigest()}
                    for k, v in files.items()
                ]
                self.answer(200, entries)

        def preupload(self, body, name, revision):
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] > LARGE else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self.answer(200, {"files": modes})

        def batch(self, body, name):
            objects = [
                {
                    "oid": o["oid"],
                    "size": o["size"],
                    "actions": {"upload": {"href": f"{ENDPOINT(self)}/large/{o['oid']}"}},
                }
                for o in json.loads(body)["objects"]
            ]
            self.answer(
                200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"}
            )

        def receive(self, body, digest):
            assert hashlib.sha256(body).hexdigest() == digest
            hub.large[digest] = body
            self.answer(200, {})

        def commit(self, body, name, revision):
            files = dict(hub.repos[name][revision])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            digest = hub.commit(name, files)
            url = f"{ENDPOINT(self)}/{name}/commit/{digest}"
            self.answer(200, {"commitUrl": url, "commitOid": digest, "success": True})

        def resolve(self, body, name, revision, file):
            if self.known(name, revision):
                contents = hub.repos[name][revision].get(file)
                if contents is None:
                    return self.refuse(404, "EntryNotFound", "Entry not found")
                tag = f'"{hashlib.sha256(contents).hexdigest()}"'
                headers = {"X-Repo-Commit": hub.head(name, revision), "ETag": tag, "Accept-Ranges": "bytes"}
                self.answer(200, contents, headers)

    return Handler


def ENDPOINT(request) -> str:
    return f"http://127.0.0.1:{request.server.server_port}"


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (r"POST /api/repos/create", lambda s, b: s.create(b)),
    (r"POST /api/validate-yaml", lambda s, b: s.answer(200, {"warnings": [], "errors": []})),
    (rf"GET /api/models/{NAME}", lambda s, b, *a: s.info(b, *a)),
    (rf"GET /api/models/{NAME}/revision/(.+)", lambda s, b, *a: s.info(b, *a)),
    (rf"GET /api/models/{NAME}/tree/([^/]+)/?", lambda s, b, *a: s.tree(b, *a)),
    (rf"POST /api/models/{NAME}/preupload/(.+)", lambda s, b, *a: s.preupload(b, *a)),
    (rf"POST /api/models/{NAME}/commit/(.+)", lambda s, b, *a: s.commit(b, *a)),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", lambda s, b, *a: s.batch(b, *a)),
    (r"PUT /large/(\w+)", lambda s, b, *a: s.receive(b, *a)),
    (rf"(?:GET|HEAD) /{NAME}/resolve/([^/]+)/(.+)", lambda s, b, *a: s.resolve(b, *a)),
]


def serve(token: str) -> tuple[Hub, ThreadingHTTPServer]:
    """A hub, and the server that must be run and shut down."""
    hub = Hub(token)
    return hub, ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
