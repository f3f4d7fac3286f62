"""Bytes that workers read of a source, beside its own (bar S6), counted by a store and by a web server.

    python benchmarks/read_amplification.py [FOLDER] [--side 8192] [--chunk 512] [--region 2048] [--workers 2 4]

The network has the paper's halo and four channels, so that reading is what is seen. What is counted are the encoded
bytes of chunks: locally by a store that wraps the one that workers open, over HTTP by the server that sends them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import WrapperStore

import unet_dask
from unet_dask.model.header import NetworkSpec, Normalisation
from unet_dask.workers.cluster import local_cluster


class CountingStore(WrapperStore[Any]):
    """A store that appends the length of every chunk that was read to a file of its process."""

    def __init__(self, store: Any, folder: str) -> None:
        super().__init__(store)
        self._log = Path(folder) / f"read-{os.getpid()}"

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        found = await super().get(key, prototype, byte_range)
        if found is not None and "zarr.json" not in key:
            with self._log.open("a") as log:
                log.write(f"{len(found)}\n")
        return found


def count_here(folder: str) -> None:
    """Have this worker count what it reads."""
    from unet_dask.io.source import window

    plain = window._store  # noqa: SLF001 # nothing else stands between Zarr and what it reads
    window._store = lambda location: CountingStore(plain(location), folder)  # noqa: SLF001


class CountingHandler(SimpleHTTPRequestHandler):
    """A web server that counts the bytes of chunks that it sends."""

    sent = 0
    lock = threading.Lock()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        body = source.read()
        if "/c/" in self.path:
            with CountingHandler.lock:
                CountingHandler.sent += len(body)
        outputfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="out/reading", type=Path)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--region", type=int, default=2048)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--precision", default="float32", help="auto reads some tiles more, to compare")
    options = parser.parse_args()
    folder: Path = options.folder
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "served").mkdir(parents=True)
    source, model = folder / "served" / "source.zarr", folder / "net.safetensors"
    array = zarr.create_array(
        source, shape=(options.side,) * 2, chunks=(options.chunk,) * 2, dtype="uint8", compressors=None
    )
    array[...] = np.random.default_rng(0).integers(1, 255, array.shape).astype(np.uint8)
    constants = Normalisation("constant", (127.0,), (64.0,))
    network = unet_dask.new_model(NetworkSpec(dims=2, width=4, depth=4), normalisation=constants)
    unet_dask.save_model(network, model)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(CountingHandler, directory=str(folder / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for workers in options.workers:
        for kind, url in (
            ("local", str(source)),
            ("HTTP", f"http://127.0.0.1:{server.server_port}/source.zarr"),
        ):
            CountingHandler.sent = 0
            sink = folder / f"{kind}-{workers}.zarr"
            with local_cluster(workers=workers, threads=1, limit=3 << 30, device="cpu") as cluster:
                cluster.client.run(count_here, str(folder))
                unet_dask.segment_store(
                    url,
                    sink,
                    model,
                    client=cluster.client,
                    region=(options.region,) * 2,
                    memory="3GiB",
                    precision=options.precision,
                )
            read = CountingHandler.sent
            logs = list(folder.glob("read-*"))
            counted = sum(int(line) for log in logs for line in log.read_text().split())
            for log in logs:
                log.unlink()
            if kind == "local":
                read = counted
            print(
                f"{kind}, {workers} workers: {read / array.nbytes:.3f} x the source "
                f"(by the store: {counted / array.nbytes:.3f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
