"""A stand-in for the Hub on the loopback: enough of its HTTP interface for pushing and loading datasets.

Repositories live in memory. It shows that the clients are satisfied, not that the real Hub agrees.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from loopback import Loopback, QuietHandler

TOKEN = "hf_test"
USER = "me"
LICENSES = ("apache-2.0", "cc-by-4.0", "mit", "other", "unknown")

Files = dict[str, bytes]


class Refusal(Exception):
    """An answer with an error status; the Hub's clients read its code from a header."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: Any):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.body = {"error": message, **body}


@dataclass
class Repository:
    """A dataset repository: branches point to commits, commits hold whole trees."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: Files, message: str) -> str:
        """Puts a tree on a branch and returns the commit's name."""
        sha = hashlib.sha1(f"{branch} {len(self.messages)} {message}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def resolve(self, revision: str) -> str:
        """The commit that a branch or a commit's name stands for."""
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    def tree(self, revision: str) -> Files:
        """All files at a revision."""
        return self.commits[self.resolve(revision)]


class HubStandIn(Loopback):
    """Serves repositories; its ``url`` is the address for ``HF_ENDPOINT``.

    Attributes:
        repositories: By full name.
        objects: Contents of large files by SHA-256.
        requests: What was asked, as ``METHOD path``.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []

    def files(self, repo_id: str, revision: str = "main") -> Files:
        """The tree at a revision, large files resolved."""
        return self.repositories[repo_id].tree(revision)


class _Handler(QuietHandler):
    """One request. A route's function gets its groups from the path and returns what is sent as JSON."""

    owner: HubStandIn

    def handle_request(self) -> None:
        """Finds the route and answers."""
        split = urlsplit(self.path)
        self.query = parse_qs(split.query)
        self.owner.requests.append(f"{self.command} {split.path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            # A client that forgets its token must not get through, where the Hub would ask for it.
            is_open = split.path.startswith("/lfs/") or split.path == "/api/validate-yaml"
            if not is_open and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refusal(401, "Invalid username or password.")
            for methods, pattern, answer in ROUTES:
                match = re.fullmatch(pattern, split.path)
                if match and self.command in methods.split():
                    answered = answer(self, **{key: unquote(value) for key, value in match.groupdict("").items()})
                    if answered is not None:
                        self.send(200, json.dumps(answered).encode())
                    return
            raise Refusal(404, f"The stand-in knows no {self.command} {split.path}")
        except Refusal as refusal:
            self.send(refusal.status, json.dumps(refusal.body).encode(), refusal.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        """Sends an answer; a HEAD is told the length only."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def repository(self, repo: str) -> Repository:
        """The repository, or the Hub's way to say that there is none."""
        if repo not in self.owner.repositories:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return self.owner.repositories[repo]

    def json(self) -> Any:
        """The request's JSON."""
        return json.loads(self.body or b"{}")

    def named_repository(self) -> str:
        """The full name of the repository that the request's JSON speaks of."""
        return f"{self.json().get('organization') or USER}/{self.json()['name']}"

    def whoami(self) -> Any:
        """Whose token it is."""
        return {"type": "user", "name": USER, "orgs": [], "auth": {"type": "access_token"}}

    def create(self) -> Any:
        """Makes a repository with a first commit, as the Hub does."""
        repo = self.named_repository()
        url = f"{self.owner.url}/datasets/{repo}"
        if repo in self.owner.repositories:
            raise Refusal(409, "You already created this dataset repo", url=url)
        self.owner.repositories[repo] = Repository(self.json().get("visibility") == "private")
        self.owner.repositories[repo].commit("main", {".gitattributes": b"*.parquet filter=lfs\n"}, "initial commit")
        return {"url": url, "name": repo, "id": repo}

    def delete(self) -> Any:
        """Removes a repository."""
        repo = self.named_repository()
        self.repository(repo)
        del self.owner.repositories[repo]
        return {}

    def info(self, repo: str, revision: str = "") -> Any:
        """What the repository is and what files it has."""
        sha = self.repository(repo).resolve(revision or "main")
        siblings = [{"rfilename": path} for path in self.repository(repo).tree(sha)]
        return {"id": repo, "sha": sha, "private": self.repository(repo).private, "siblings": siblings}

    def refs(self, repo: str) -> Any:
        """The branches."""
        branches = self.repository(repo).branches.items()
        listed = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in branches]
        return {"branches": listed, "converts": [], "tags": []}

    def branch(self, repo: str, revision: str) -> Any:
        """Makes a branch of an existing revision."""
        repository = self.repository(repo)
        if revision in repository.branches:
            raise Refusal(409, "Reference already exists")
        repository.branches[revision] = repository.resolve(self.json().get("startingPoint", "main"))
        return {}

    def tree(self, repo: str, revision: str, folder: str = "") -> Any:
        """Files and folders, of one level or all."""
        files = self.repository(repo).tree(revision)
        prefix = f"{folder}/" if folder else ""
        inside = [path.removeprefix(prefix).split("/") for path in files if path.startswith(prefix)]
        if not inside:
            raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        deep = self.query.get("recursive", ["false"])[0].lower() == "true"
        paths = {prefix + "/".join(parts[: end + 1]) for parts in inside for end in range(len(parts) if deep else 1)}
        return [_entry(files, path) for path in sorted(paths)]

    def paths_info(self, repo: str, revision: str) -> Any:
        """The entries of the named paths that exist."""
        files = self.repository(repo).tree(revision)
        wanted = parse_qs(self.body.decode())["paths"]
        folders = {path.rsplit("/", end)[0] for path in files for end in range(1, path.count("/") + 1)}
        return [_entry(files, path) for path in wanted if path in files or path in folders]

    def preupload(self, repo: str, revision: str) -> Any:
        """How each file is to be uploaded."""
        files = self.repository(repo).tree(revision)
        modes = []
        for item in self.json()["files"]:
            path = item["path"]
            oid = _oid(path, files[path]) if path in files else None
            mode = "lfs" if _is_large(path) else "regular"
            modes.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": modes}

    def batch(self, repo: str) -> Any:
        """Where to put the large files that are not here yet."""
        self.repository(repo)
        objects = self.json()["objects"]
        for item in objects:
            if item["oid"] not in self.owner.objects:
                place = {"href": f"{self.owner.url}/lfs/{item['oid']}"}
                item["actions"] = {"upload": place, "verify": {"href": f"{self.owner.url}/verify"}}
        return {"transfer": "basic", "objects": objects}

    def put(self, oid: str) -> Any:
        """Takes a large file's content."""
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "the content does not have the promised hash")
        self.owner.objects[oid] = self.body
        return {}

    def verify(self) -> Any:
        """Confirms that a large file has arrived whole."""
        asked = self.json()
        if len(self.owner.objects.get(asked["oid"], b"")) != asked["size"]:
            raise Refusal(404, "no such object")
        return {}

    def commit(self, repo: str, revision: str) -> Any:
        """Applies the operations, one JSON a line, unless the branch has moved meanwhile."""
        repository = self.repository(repo)
        if revision not in repository.branches:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        files = dict(repository.commits[repository.branches[revision]])
        header: dict[str, Any] = {}
        for operation in (json.loads(line) for line in self.body.splitlines()):
            key, value = operation["key"], operation["value"]
            if key == "header":
                header = value
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.owner.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise Refusal(400, f"The stand-in knows no operation {key}")
        if header.get("parentCommit", repository.branches[revision]) != repository.branches[revision]:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        sha = repository.commit(revision, files, header["summary"])
        return {"commitUrl": f"{self.owner.url}/datasets/{repo}/commit/{sha}", "commitOid": sha, "pullRequestUrl": None}

    def resolve(self, repo: str, revision: str, path: str) -> None:
        """A file's content, or a range of it."""
        repository = self.repository(repo)
        sha = repository.resolve(revision)
        if path not in repository.commits[sha]:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        content = repository.commits[sha][path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_oid(path, content)}"', "Accept-Ranges": "bytes"}
        headers["Content-Type"] = "application/octet-stream"
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self.send(200, content, headers)
        start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if start > end:
            raise Refusal(416, "Range not satisfiable")
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return self.send(206, content[start : end + 1], headers)

    def validate_yaml(self) -> Any:
        """Refuses a card without a YAML head or with a licence that the Hub does not know."""
        content = self.json()["content"].replace("\r\n", "\n")
        head = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        if head is None:
            return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
        named = re.search(r"^license: (.+)$", head[1], re.MULTILINE)
        if named and named[1] not in LICENSES:
            error = {"message": f'"license" must be one of [{", ".join(LICENSES)}]'}
            raise Refusal(400, "Invalid metadata", errors=[error], warnings=[])
        return {"errors": [], "warnings": []}


def _is_large(path: str) -> bool:
    return path.endswith(".parquet")


def _oid(path: str, content: bytes) -> str:
    """As git names the file, or as LFS does."""
    if _is_large(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(files: Files, path: str) -> dict[str, Any]:
    """How tree and paths-info describe a file or a folder."""
    commit = {"id": "0" * 40, "title": "a commit", "date": "2026-01-01T00:00:00.000Z"}
    if path not in files:
        return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
    oid, size = _oid(path, files[path]), len(files[path])
    entry = {"type": "file", "path": path, "oid": oid[:40], "size": size, "lastCommit": commit}
    if _is_large(path):
        entry["lfs"] = {"oid": oid, "size": size, "pointerSize": 134}
    return entry


_DATASET = r"/api/datasets/(?P<repo>[^/]+/[^/]+)"
_REVISION = r"/(?P<revision>[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/repos/create", _Handler.create),
    ("DELETE", r"/api/repos/delete", _Handler.delete),
    ("GET", _DATASET, _Handler.info),
    ("GET", _DATASET + "/revision" + _REVISION, _Handler.info),
    ("GET", _DATASET + "/refs", _Handler.refs),
    ("POST", _DATASET + "/branch" + _REVISION, _Handler.branch),
    ("GET", _DATASET + "/tree" + _REVISION + r"(/(?P<folder>.+))?", _Handler.tree),
    ("POST", _DATASET + "/paths-info" + _REVISION, _Handler.paths_info),
    ("POST", _DATASET + "/preupload" + _REVISION, _Handler.preupload),
    ("POST", r"/datasets/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.put),
    ("POST", r"/verify", _Handler.verify),
    ("POST", _DATASET + "/commit" + _REVISION, _Handler.commit),
    ("GET HEAD", r"/datasets/(?P<repo>[^/]+/[^/]+)/resolve" + _REVISION + r"/(?P<path>.+)", _Handler.resolve),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
]
