"""`ex4d models` against a small server of our own: sizes first, resume, checksums, damage, offline finding, conversion."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ex4d.cli.main import main
from ex4d.models.hub import catalogue, find

REPO = "org/model"
FILES = {"weights/big.safetensors": bytes(range(256)) * 9000, "config.json": b'{"a": 1}', "other.bin": b"not asked for"}


class Server:
    """Hugging Face's two calls; `cut_at` breaks the next large answer off, `spoil` sends wrong bytes."""

    def __init__(self):
        self.cut_at, self.spoil, self.ranges = None, False, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, request):
        path = request.path.split("?")[0]
        if path == f"/api/models/{REPO}/revision/main":
            siblings = [{"rfilename": n, "size": len(b), **lfs(n, b)} for n, b in FILES.items()]
            return self.send(request, 200, json.dumps({"sha": "c0ffee", "siblings": siblings}).encode())
        name = path.removeprefix(f"/{REPO}/resolve/c0ffee/")
        if name not in FILES:
            return self.send(request, 404, b"")
        data, start = FILES[name], 0
        if self.spoil:
            data = bytes(len(data))
        if "Range" in request.headers:
            start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self.ranges.append(start)
        self.send(request, 206 if start else 200, data[start:], self.cut_at if len(data) > 100 else None)

    def send(self, request, status, data, cut=None):
        request.send_response(status)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            request.wfile.flush()
            request.close_connection = True


def lfs(name, data):
    return {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}} if len(data) > 100 else {}


@pytest.fixture
def server(monkeypatch, tmp_path):
    server = Server()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "EX4D_MODELS", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    patterns = ("weights/*", "config.json")
    item = catalogue.WeightSet("toy", {REPO: patterns}, 0.002, "MIT", "a test")
    monkeypatch.setattr(catalogue, "SETS", {"toy": item})
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_size_and_licence_come_first_and_no_means_no(server, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    assert main(["models", "download", "toy", "--models", str(tmp_path / "m")]) == 0
    out = capsys.readouterr().out
    assert "0.00 GB; licence: MIT" in out and "nothing downloaded" in out
    assert not (tmp_path / "m").exists()


def test_a_broken_download_goes_on_where_it_stopped(server, capsys, tmp_path):
    models = tmp_path / "m"
    server.cut_at = 1_500_000
    assert main(["models", "download", "toy", "--models", str(models), "--yes"]) == 2
    assert "same command again" in capsys.readouterr().err
    folder = models / REPO
    assert [p.name for p in folder.rglob("*") if p.is_file()] == ["big.safetensors.part"]
    server.cut_at = None
    assert main(["models", "download", "toy", "--models", str(models), "--yes"]) == 0
    assert server.ranges == [1_500_000]
    for name in ("weights/big.safetensors", "config.json"):
        assert (folder / name).read_bytes() == FILES[name]
    assert not (folder / "other.bin").exists()
    assert main(["models", "verify", "toy", "--models", str(models)]) == 0
    server.ranges.clear()
    assert main(["models", "download", "toy", "--models", str(models), "--yes"]) == 0
    assert server.ranges == [], "what is here is not fetched again"


def test_damage_is_found(server, capsys, tmp_path):
    server.spoil = True
    assert main(["models", "download", "toy", "--yes"]) == 2
    assert "damaged" in capsys.readouterr().err
    assert not list((tmp_path / "hf").rglob("*.safetensors*"))
    server.spoil = False
    assert main(["models", "download", "toy", "--yes"]) == 0
    folder = find.find_repo(REPO, None, ("weights/*",))
    assert folder is not None and folder.is_relative_to(tmp_path / "hf"), "in the Hugging Face cache, found there"
    big = folder / "weights/big.safetensors"
    data = bytearray(big.read_bytes())
    data[1000] ^= 1
    big.write_bytes(bytes(data))
    capsys.readouterr()
    assert main(["models", "verify", "toy"]) == 2
    assert "big.safetensors is damaged" in capsys.readouterr().err


def test_offline_and_unreachable_are_one_line(server, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["models", "download", "toy", "--yes"]) == 2
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["models", "download", "toy", "--yes"]) == 2
    assert "no connection" in capsys.readouterr().err


def test_list_says_what_is_here(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("EX4D_MODELS", raising=False)
    assert main(["models", "list"]) == 0
    out = capsys.readouterr().out
    assert "wan14b" in out and "83.0 GB" in out and "Apache-2.0" in out and "depthcrafter" in out
