"""Another user of the machine, who knows every port of a run: she gets in nowhere (bar T3)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.conftest import SCRIPT, save_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unet_dask.workers.cluster import Cluster

NOBODY = "65534"
SETPRIV = shutil.which("setpriv")
AS_NOBODY = [str(SETPRIV), "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
#: What another user has: no variable of the one who runs.
BARE = {"PATH": os.environ.get("PATH", ""), "HOME": "/"}

#: A run that stops at its first region until it is told to go on, with a lazy array beside it.
RUN = """
import os, sys
import dask.array as da
import numpy as np
import unet_dask

def wait(event):
    global waited
    if hasattr(event, "outcome") and not waited:
        waited = True
        print("at work", flush=True)
        sys.stdin.readline()

if __name__ == "__main__":
    waited = False
    unsaved = unet_dask.new_model(unet_dask.NetworkSpec(width=2, depth=1))
    lazy = unet_dask.segment(da.zeros((40, 40), dtype=np.uint8), unsaved)
    unet_dask.segment_store(
        *sys.argv[1:], workers=2, precision="float32", tile=(32, 32), region=(32, 32), chunks=(32, 32), on_event=wait
    )
    print("done", lazy.shape, flush=True)
"""

#: Every attempt prints what it got, or null.
ATTACK = """
import asyncio, json, os, socket, ssl, sys, urllib.request
from pathlib import Path
from distributed.comm import connect
from distributed.security import Security

known = json.loads(sys.argv[1])

def first(tries):
    for attempt in tries:
        try:
            got = attempt()
        except Exception as error:
            continue
        if got:
            return str(got)[:200]

def speak(scheme, port, **arguments):
    async def ask():
        comm = await connect(f"{scheme}://127.0.0.1:{port}", timeout=3, **arguments)
        await comm.write({"op": "identity", "reply": True})
        return await asyncio.wait_for(comm.read(), 3)
    return lambda: asyncio.run(ask())

def raw(port, host, path="/", wrap=None, more=""):
    def ask():
        with socket.create_connection(("127.0.0.1", port), timeout=3) as plain:
            plain.settimeout(1)
            with (wrap.wrap_socket(plain) if wrap else plain) as line:
                line.sendall(f"GET {path} HTTP/1.1\\r\\nHost: {host}\\r\\n{more}Connection: close\\r\\n\\r\\n".encode())
                answer = b""
                while part := line.recv(65536):
                    answer += part
        return answer if b" 200 " in answer.split(b"\\r\\n")[0] else None
    return ask

own = Security.temporary().get_connection_args("worker")
anyone = ssl.create_default_context()
anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
ports, view = known["ports"], known["view"]
hosts = ["localhost", "evil.example"]
pages = ["/", "/status", "/health", "/json/counts.json"]
tokens = ["", "A" * 43, known["old"]]
names = ["unet-dask", "token", "unet-dask-00000000"]

def over(ports, paths, **options):
    return first(raw(port, f"{host}:{port}", path, **options) for port in ports for host in hosts for path in paths)

def readable():
    for folder, _, names in os.walk(known["temporary"]):
        for name in names:
            path = os.path.join(folder, name)
            if os.stat(path).st_uid != os.getuid() and os.access(path, os.R_OK):
                yield lambda path=path: path

def told(name):
    for process in known["processes"]:
        def look(process=process):
            text = Path(f"/proc/{process}/{name}").read_bytes()
            return text if name == "environ" or b"PRIVATE KEY" in text or b"token" in text else None
        yield look

result = {
    "scheduler, plain": first([speak("tcp", known["scheduler"])]),
    "scheduler, with another key": first([speak("tls", known["scheduler"], **own)]),
    "any port, plain": first(speak("tcp", port) for port in ports),
    "any port, with another key": first(speak("tls", port, **own) for port in ports),
    "pages": over(ports, pages),
    "pages, over TLS": over(ports, pages, wrap=anyone),
    "view": over([view], ["/", "/scene.json", "/voxel.json?y=0&x=0"]),
    "view, token": over([view], [f"/?token={token}" for token in tokens]),
    "view, cookie": first(
        raw(view, f"localhost:{view}", "/scene.json", more=f"Cookie: {name}={token}\\r\\n")
        for name in names for token in tokens
    ),
    "files": first(readable()),
    "variables": first(told("environ")),
    "arguments": first(told("cmdline")),
}
print(json.dumps(result))
"""

pytestmark = [
    pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become another user"),
    pytest.mark.skipif(SETPRIV is None, reason="needs setpriv"),
    pytest.mark.timeout(400),
]


def as_nobody(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script as another user of this machine."""
    command = [*AS_NOBODY, sys.executable, "-c", script, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=BARE, cwd="/", check=False, timeout=300
    )


def attack(known: dict[str, Any]) -> dict[str, str | None]:
    done = as_nobody(ATTACK, json.dumps(known))
    assert done.returncode == 0, done.stderr
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """Return a folder for temporary files of all users, in which another user was first."""
    if as_nobody("import distributed").returncode:
        pytest.skip("another user cannot run this Python")
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o1777)
        planted = str(folder / "dask-scratch-space")
        assert as_nobody("import os, sys; os.umask(0); os.mkdir(sys.argv[1])", planted).returncode == 0
        yield folder
    finally:
        shutil.rmtree(folder)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]


def ports_of(processes: list[psutil.Process]) -> list[int]:
    return sorted(
        {
            place.laddr.port
            for each in processes
            for place in each.net_connections("inet")
            if place.status == psutil.CONN_LISTEN
        }
    )


def opened(sink: Path) -> tuple[subprocess.Popen[str], str]:
    """Return a viewer and the address that it has told."""
    viewer = subprocess.Popen([SCRIPT, "view", str(sink), "--no-browser"], stderr=subprocess.PIPE, text=True)
    assert viewer.stderr is not None
    for line in viewer.stderr:
        if found := re.search(r"http://\S+", line):
            return viewer, found[0]
    raise AssertionError("view has ended")


def test_another_user_gets_in_nowhere(temporary: Path, tiny_model: Path, tmp_path: Path) -> None:
    source, sink = save_source(tmp_path / "a.zarr", (96, 96)), tmp_path / "r.zarr"
    script = tmp_path / "run.py"
    script.write_text(RUN)
    run = subprocess.Popen(
        [sys.executable, str(script), str(source), str(sink), str(tiny_model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "at work\n"
    ended, old = opened(sink)
    ended.terminate()
    ended.communicate(timeout=60)
    viewer, address = opened(sink)
    try:
        processes = family(run)
        ports = ports_of(processes)
        assert len(ports) == 5  # scheduler, and nanny and worker of two
        (view,) = ports_of(family(viewer))
        token = old.rpartition("=")[2]
        known = {
            "scheduler": ports[0],
            "ports": ports,
            "view": view,
            "old": token,
            "temporary": str(temporary),
            "processes": [each.pid for each in (*processes, *family(viewer))],
        }
        found = attack(known)
        assert {name: got for name, got in found.items() if got is not None} == {}
        assert len(found) >= 10
        planted = temporary / "dask-scratch-space"
        assert planted.stat().st_uid == int(NOBODY)
        assert list(planted.iterdir()) == []
        assert address != old
    finally:
        viewer.terminate()
        viewer.communicate(timeout=60)
        rest = run.communicate("\n", timeout=200)[0]
    assert (run.returncode, rest) == (0, "done (40, 40)\n")
    assert [each.name for each in temporary.iterdir()] == ["dask-scratch-space"]


class Answers(BaseHTTPRequestHandler):
    """A server that lets everybody in."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def test_the_same_attempts_succeed_where_doors_are_open(temporary: Path, cluster: Cluster) -> None:
    # Otherwise the test above could not fail.
    left = temporary / "left.safetensors"
    left.write_bytes(b"weights")
    theirs = [*AS_NOBODY, sys.executable, "-c", "import sys; sys.stdin.read()", "token=1"]
    sleeper = subprocess.Popen(theirs, stdin=subprocess.PIPE, env=BARE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    scheduler = int(cluster.client.scheduler.address.rpartition(":")[2])
    known = {
        "scheduler": scheduler,
        "ports": [scheduler, server.server_port],
        "view": server.server_port,
        "old": "",
        "temporary": str(temporary),
        "processes": [sleeper.pid],
    }
    try:
        found = attack(known)
    finally:
        left.unlink()
        server.shutdown()
        server.server_close()
        sleeper.communicate(timeout=60)
    without_tls = {"scheduler, with another key", "any port, with another key", "pages, over TLS"}
    assert {name for name, got in found.items() if got is not None} == found.keys() - without_tls
