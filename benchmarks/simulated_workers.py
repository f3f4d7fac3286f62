"""Workers that only speak the scheduler's protocol: a task takes its time, and nothing is computed.

    python benchmarks/simulated_workers.py SCHEDULER WORKERS SECONDS FOLDER

Each worker has a connection, a server and heartbeats of its own, and runs one task at a time in the order of their
priorities. It tells the scheduler what a real one tells: finished tasks, inputs that it would have fetched, answers to
requests for its tasks or its data. What is missing: the pickled task is not unpacked, and no input is fetched.
A region takes SECONDS, everything else no time. The busy seconds of all workers are written to FOLDER/busy every
second.
"""

from __future__ import annotations

import asyncio
import heapq
import pickle
import sys
import time
from pathlib import Path
from typing import Any

from distributed.batched import BatchedSend
from distributed.comm import connect
from distributed.core import Server, Status, rpc
from distributed.protocol import to_serialize

from unet_dask.engine.slots import REGION_SLOTS
from unet_dask.graph import Record
from unet_dask.ledger import Entry

VALUE = Record(Entry((0, 0, 0), 0, {"classes": "0" * 32}), 2.0, 1, 1 << 30, 1)
METRICS = {
    "task_counts": {}, "bandwidth": {"total": 1e8, "workers": {}, "types": {}}, "digests_total_since_heartbeat": {},
    "managed_bytes": 0, "spilled_bytes": {"memory": 0, "disk": 0}, "event_loop_interval": 0.02, "cpu": 100.0,
    "transfer": {"incoming_bytes": 0, "incoming_count": 0, "incoming_count_total": 0, "outgoing_bytes": 0,
                 "outgoing_count": 0, "outgoing_count_total": 0},
    "memory": 1 << 30, "time": 0.0, "host_net_io": {"read_bps": 0.0, "write_bps": 0.0},
    "host_disk_io": {"read_bps": 0.0, "write_bps": 0.0}, "num_fds": 50,
}  # fmt: skip


class SimulatedWorker(Server):
    """One worker."""

    def __init__(self, scheduler: str, number: int, seconds: float) -> None:
        super().__init__({"get_data": self.get_data}, stream_handlers={})
        self.scheduler_address = scheduler
        self.number = number
        self.seconds = seconds
        self.stream = BatchedSend(interval="2ms")
        self.held: set[Any] = set()
        self.queue: list[tuple[Any, int, Any]] = []
        self.waiting: dict[Any, int] = {}  # key -> run of what stands in the queue
        self.running: Any = None
        self.busy = 0.0
        self.first = self.last = 0.0
        self.regions = 0

    async def begin(self) -> None:
        await self.listen("tcp://127.0.0.1:0")
        comm = await connect(self.scheduler_address)
        await comm.write(
            {
                "op": "register-worker", "reply": False, "address": self.address, "status": Status.running.name,
                "nthreads": REGION_SLOTS, "name": self.number, "now": time.time(), "resources": {},
                "memory_limit": 4 << 30, "local_directory": "", "services": {}, "nanny": None, "pid": self.number,
                "versions": {},
                "metrics": METRICS, "extra": {}, "stimulus_id": "begin", "server_id": self.id,
            },
            serializers=["msgpack"],
        )  # fmt: skip
        response = await comm.read(deserializers=["msgpack"])
        self.stream.start(comm)
        self.status = Status.running
        asyncio.ensure_future(self.listen_to(comm))  # noqa: RUF006 # lives as long as the process
        asyncio.ensure_future(self.beat(response["heartbeat-interval"]))  # noqa: RUF006

    async def beat(self, interval: float) -> None:
        async with rpc(self.scheduler_address) as scheduler:
            while True:
                await asyncio.sleep(interval)
                response = await scheduler.heartbeat_worker(
                    address=self.address, now=time.time(), metrics=METRICS | {"time": time.time()}, executing={},
                    extensions={},
                )  # fmt: skip
                interval = response["heartbeat-interval"]

    async def listen_to(self, comm: Any) -> None:
        while True:
            for message in await comm.read():
                handler = getattr(self, f"on_{message['op'].replace('-', '_')}", None)
                if handler:
                    handler(message)
            self.next()

    def on_compute_task(self, message: dict[str, Any]) -> None:
        fetched = [key for key in message["who_has"] if key not in self.held]
        if fetched:
            self.held.update(fetched)
            self.stream.send({"op": "add-keys", "keys": fetched, "stimulus_id": "fetched"})
        self.waiting[message["key"]] = message["run_id"]
        heapq.heappush(self.queue, (message["priority"], message["run_id"], message["key"]))

    def on_free_keys(self, message: dict[str, Any]) -> None:
        for key in message["keys"]:
            self.held.discard(key)
            self.waiting.pop(key, None)

    def on_remove_replicas(self, message: dict[str, Any]) -> None:
        for key in message["keys"]:
            self.held.discard(key)
            self.stream.send({"op": "release-worker-data", "key": key, "stimulus_id": "removed"})

    def on_steal_request(self, message: dict[str, Any]) -> None:
        state = "ready" if self.waiting.pop(message["key"], None) is not None else "executing"
        answer = {"op": "steal-response", "key": message["key"], "state": state}
        self.stream.send(answer | {"stimulus_id": message["stimulus_id"]})

    def next(self) -> None:
        """Do what takes no time, up to the next region."""
        while self.running is None and self.queue:
            _, run, key = heapq.heappop(self.queue)
            if self.waiting.get(key) != run:
                continue
            del self.waiting[key]
            if str(key[0] if isinstance(key, tuple) else key).startswith("segment"):
                self.running = key
                self.first = self.first or time.time()
                asyncio.get_running_loop().call_later(self.seconds, self.finish, key, run)
            else:
                self.tell(key, run, 0.0)

    def finish(self, key: Any, run: int) -> None:
        self.busy += self.seconds
        self.regions += 1
        self.last = time.time()
        self.running = None
        self.tell(key, run, self.seconds)
        self.next()

    def tell(self, key: Any, run: int, seconds: float) -> None:
        self.held.add(key)
        now = time.time()
        self.stream.send(
            {
                "op": "task-finished", "status": "OK", "key": key, "run_id": run, "nbytes": 1000,
                "type": KIND, "typename": "Record", "metadata": {}, "thread": 1, "stimulus_id": f"finished-{now}",
                "startstops": [{"action": "compute", "start": now - max(seconds, 1e-3), "stop": now}],
            }
        )  # fmt: skip

    async def get_data(self, comm: Any, keys: Any, **_: Any) -> Any:
        await comm.write({"status": "OK", "data": {key: to_serialize(VALUE) for key in keys}})
        await comm.read()
        return Status.dont_reply


KIND = pickle.dumps(Record)


async def main() -> None:
    scheduler, count, seconds, folder = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
    workers = [SimulatedWorker(scheduler, number, seconds) for number in range(count)]
    for worker in workers:
        await worker.begin()
    (folder / "ready").touch()
    while True:
        await asyncio.sleep(1)
        firsts = [worker.first for worker in workers if worker.first]
        figures = (
            sum(worker.busy for worker in workers),
            sum(worker.regions for worker in workers),
            min(firsts, default=0),
            max(worker.last for worker in workers),
        )
        (folder / "busy").write_text(" ".join(map(str, figures)))


if __name__ == "__main__":
    asyncio.run(main())
