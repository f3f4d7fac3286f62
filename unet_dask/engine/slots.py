"""Whose turn it is in a process: a worker has two regions in hand, and runs the network on one of them.

While one is computed, the next is read and decoded, or the last encoded, written and flushed: neither the network nor a
disk, or a store far away, waits for the other. More than two would only take memory, and two networks at once would
take twice the feature maps that are planned and twice the threads. That holds on clusters of others too, whose workers
may have any number of threads.
"""

from __future__ import annotations

import threading

#: Regions that a process has in hand; the others wait before they have read anything.
REGION_SLOTS = 2

#: Held by a region from before it is read until it is written.
region_slots = threading.BoundedSemaphore(REGION_SLOTS)
#: Held while the network is run.
computing = threading.Lock()
